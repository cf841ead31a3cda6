//! How the message log is kept on disk.

use super::{ConfigError, SettingsFile};

/// The message log of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Message log")]
pub struct MessageLogFlags {
    /// Size of the files that messages are kept in, in MiB, 4 to 1024; two are there from the start
    #[arg(long, env = "HOLDFAST_LOG_SEGMENT_MIB", value_name = "MIB", value_parser = segment_mib)]
    pub log_segment_mib: Option<u32>,
}

/// How the message log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLog {
    /// The length of a segment, in bytes.
    pub segment_bytes: u32,
}

impl MessageLog {
    /// Seldom sealed, soon zero-filled.
    const SEGMENT_MIB: u32 = 64;
}

fn segment_mib(text: &str) -> Result<u32, String> {
    let mib = text.parse().ok().filter(|mib| (4..=1024).contains(mib));
    mib.ok_or_else(|| "expected a number from 4 to 1024".to_owned())
}

impl MessageLogFlags {
    /// Flag, else file, else the default.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<MessageLog, ConfigError> {
        let in_file = file.text("log-segment-mib", segment_mib)?;
        let mib = self.log_segment_mib.or(in_file).unwrap_or(MessageLog::SEGMENT_MIB);
        Ok(MessageLog { segment_bytes: mib * 1_024 * 1_024 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flag: Option<u32>, file: &str) -> Result<MessageLog, ConfigError> {
        let mut file = SettingsFile::parse("holdfast.toml".into(), file)?;
        MessageLogFlags { log_segment_mib: flag }.resolve(&mut file)
    }

    #[test]
    fn a_segment_has_a_size_within_reason() {
        let bytes = |flag, file: &str| resolve(flag, file).map(|log| log.segment_bytes >> 20).ok();
        assert_eq!(bytes(None, ""), Some(64));
        assert_eq!(bytes(None, r#"log-segment-mib = "8""#), Some(8));
        assert_eq!(bytes(Some(16), r#"log-segment-mib = "8""#), Some(16));
        for bad in ["3", "1025", "-1", "a"] {
            assert!(segment_mib(bad).is_err());
            assert_eq!(bytes(None, &format!("log-segment-mib = {bad:?}")), None);
        }
    }
}
