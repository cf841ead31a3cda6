//! What callers of the API may do to the service, and have it do to others.

use std::num::NonZeroU32;

use super::{ConfigError, SettingsFile};

/// The API of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "API")]
pub struct ApiFlags {
    /// Requests a second of one caller, twice as many at once; further ones are answered 429; 0 for any
    /// number [default: 500]
    #[arg(long, env = "HOLDFAST_API_RATE_LIMIT", value_name = "N", value_parser = rate)]
    pub api_rate_limit: Option<u32>,
    /// Where webhooks may be: public (https, at addresses of the public internet) or any [default: public]
    #[arg(long, env = "HOLDFAST_WEBHOOK_TARGETS", value_name = "TARGETS", value_parser = targets)]
    pub webhook_targets: Option<WebhookTargets>,
}

/// The API's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Requests a second of one caller; `None` for any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Where webhooks may be.
    pub webhook_targets: WebhookTargets,
}

/// Where webhooks may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookTargets {
    /// At addresses of the public internet, over TLS: whoever may name a webhook cannot have the service
    /// reach into the network that it stands in.
    #[default]
    Public,
    /// Anywhere, without TLS too: for a service whose callers are all trusted with its network.
    Any,
}

impl Api {
    /// More than scripts need, less than would crowd out others.
    const RATE_LIMIT: u32 = 500;
}

fn rate(text: &str) -> Result<u32, String> {
    let rate = text.parse().ok().filter(|rate| *rate <= 1_000_000);
    rate.ok_or_else(|| "expected a number from 0 to 1000000".to_owned())
}

fn targets(text: &str) -> Result<WebhookTargets, String> {
    match text {
        "public" => Ok(WebhookTargets::Public),
        "any" => Ok(WebhookTargets::Any),
        _ => Err("expected public or any".to_owned()),
    }
}

impl ApiFlags {
    /// Flag, else file, else the default.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<Api, ConfigError> {
        let rate = self.api_rate_limit.or(file.text("api-rate-limit", rate)?);
        let targets = self.webhook_targets.or(file.text("webhook-targets", targets)?);
        Ok(Api {
            rate_limit: NonZeroU32::new(rate.unwrap_or(Api::RATE_LIMIT)),
            webhook_targets: targets.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str) -> Option<Api> {
        let mut file = SettingsFile::parse("f".into(), file).ok()?;
        ApiFlags::default().resolve(&mut file).ok()
    }

    #[test]
    fn the_defaults_are_careful() {
        let api = resolve("").expect("valid");
        assert_eq!((api.rate_limit, api.webhook_targets), (NonZeroU32::new(500), WebhookTargets::Public));
        let api = resolve("api-rate-limit = '0'\nwebhook-targets = 'any'").expect("valid");
        assert_eq!((api.rate_limit, api.webhook_targets), (None, WebhookTargets::Any));
        for bad in ["api-rate-limit = '-1'", "api-rate-limit = '1000001'", "webhook-targets = 'private'"] {
            assert!(resolve(bad).is_none(), "{bad}");
        }
    }
}
