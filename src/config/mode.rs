//! How the service is run: for development or not.

use super::{ConfigError, SettingsFile};

/// The mode of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Mode")]
pub struct ModeFlags {
    /// Let anonymous clients into the cluster `default`, without quotas
    #[arg(
        long,
        env = "HOLDFAST_DEV",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub dev: Option<bool>,
}

impl ModeFlags {
    /// Flag, else file, else off.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<bool, ConfigError> {
        let dev = file.boolean("dev")?;
        Ok(self.dev.or(dev).unwrap_or(false))
    }
}
