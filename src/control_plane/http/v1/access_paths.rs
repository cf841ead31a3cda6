//! What the paths of a cluster's rules name, and what people say of them.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::super::code::Code;
use super::super::extract::{ClusterPath, segment};
use super::super::problem::{Problem, Result};
use crate::model::ClusterId;

macro_rules! paths {
    ($($(#[doc = $about:literal])* $path:ident, $parameter:literal, $field:ident, $missing:ident, $what:literal;)*) => {
        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, IntoParams)]
            #[into_params(parameter_in = Path)]
            pub(super) struct $path {
                /// The cluster's id.
                #[param(example = "default")]
                pub(super) cluster: ClusterId,
                /// The id that was given when it was made.
                #[param(example = "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f")]
                $field: String,
            }

            impl $path {
                /// The id; `None` for what cannot be one, and so is nobody's.
                pub(super) fn id(&self) -> Option<Uuid> {
                    self.$field.parse().ok()
                }

                pub(super) fn not_found(&self) -> Problem {
                    let Self { cluster, $field: id } = self;
                    Problem::new(Code::$missing, format!("cluster \"{cluster}\" has no {} \"{id}\"", $what))
                }
            }

            impl<S: Send + Sync> FromRequestParts<S> for $path {
                type Rejection = Problem;

                async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
                    let ClusterPath { cluster } = ClusterPath::from_request_parts(parts, state).await?;
                    Ok(Self { cluster, $field: segment(parts, state, $parameter).await? })
                }
            }
        )*
    };
}

paths! {
    /// The policy that a path names.
    PolicyPath, "policy_id", policy_id, PolicyNotFound, "policy";
    /// The authenticator that a path names.
    AuthenticatorPath, "authenticator_id", authenticator_id, AuthenticatorNotFound, "authenticator";
    /// The message rule that a path names.
    MessageRulePath, "message_rule_id", message_rule_id, MessageRuleNotFound, "message rule";
    /// The block rule that a path names.
    BlockRulePath, "block_rule_id", block_rule_id, BlockRuleNotFound, "block rule";
    /// The automatic subscription that a path names.
    AutoSubscriptionPath, "auto_subscription_id", auto_subscription_id, AutoSubscriptionNotFound,
        "automatic subscription";
}

/// What people say of a rule: 1 to 256 characters, none of them a control character.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Remark(String);

impl Remark {
    const CHARS_MAX: usize = 256;

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for Remark {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = (1..=Self::CHARS_MAX).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text))
        } else {
            Err("1 to 256 characters, none of them a control character")
        }
    }
}
