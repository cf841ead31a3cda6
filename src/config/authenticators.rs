//! Whom authenticators may ask.

use super::{ConfigError, SettingsFile};

/// The authenticators of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Authenticators")]
pub struct AuthenticatorFlags {
    /// Where tenants' authenticators may send requests: public (addresses) or any [default: public]
    #[arg(long, env = "HOLDFAST_AUTHENTICATOR_TARGETS", value_name = "WHERE", value_parser = targets)]
    pub authenticator_targets: Option<AuthenticatorTargets>,
}

/// Where authenticators that ask over HTTP, and those that fetch keys, may send requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthenticatorTargets {
    /// To public addresses: nothing of this machine or its network.
    #[default]
    Public,
    /// Anywhere: for whoever trusts all who may set up authenticators.
    Any,
}

impl AuthenticatorFlags {
    /// Flag, else file, else the default.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<AuthenticatorTargets, ConfigError> {
        let in_file = file.text("authenticator-targets", targets)?;
        Ok(self.authenticator_targets.or(in_file).unwrap_or_default())
    }
}

fn targets(text: &str) -> Result<AuthenticatorTargets, String> {
    match text {
        "public" => Ok(AuthenticatorTargets::Public),
        "any" => Ok(AuthenticatorTargets::Any),
        _ => Err("expected public or any".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_asked_unless_it_is_said() {
        let resolve = |text: &str| {
            let mut file = SettingsFile::parse("holdfast.toml".into(), text)?;
            AuthenticatorFlags::default().resolve(&mut file)
        };
        assert_eq!(resolve("").ok(), Some(AuthenticatorTargets::Public));
        assert_eq!(resolve("authenticator-targets = 'any'").ok(), Some(AuthenticatorTargets::Any));
        assert!(resolve("authenticator-targets = 'some'").is_err());
    }
}
