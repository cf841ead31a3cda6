//! The chain, with links that need nobody outside.

use super::*;
use crate::model::{
    Authenticators, ClusterId, Hidden, JwtAlgorithm, JwtKey, JwtSettings, KEY_BYTES, Password, Plan, Quota,
    QuotaOverrides, SALT_BYTES, Secrets, Username, Users,
};

fn authenticator() -> Arc<Authenticator> {
    let links = Links::new(Clock::new(), None, Arc::default());
    Arc::new(Authenticator::new(Clock::new(), [7; KEY_BYTES], links))
}

fn link(number: u128, settings: AuthenticatorSettings) -> model::Authenticator {
    let position = u32::try_from(number).expect("small");
    model::Authenticator { id: Uuid::from_u128(number), position, is_enabled: true, settings, version: 1 }
}

fn jwt(key: JwtKey) -> AuthenticatorSettings {
    let algorithms = match key {
        JwtKey::Secret { .. } => [JwtAlgorithm::Hs256].into(),
        _ => [JwtAlgorithm::Es256].into(),
    };
    let token_in = TokenIn::Password;
    AuthenticatorSettings::Jwt(JwtSettings {
        token_in,
        key,
        algorithms,
        claims: [].into(),
        username_claim: None,
    })
}

/// The user `ada` with the password `ada`.
fn users() -> Users {
    let password = Password::new("ada").expect("a password");
    let secrets = Secrets::derive(&password, Uuid::from_u128(1), [[1; SALT_BYTES], [2; SALT_BYTES]]);
    let name = Username::new("ada").expect("a name");
    Users { by_name: [(name, secrets.into())].into(), ..Users::default() }
}

/// The cluster `default` with the user `ada` and this chain, and the state that it is in.
fn cluster(chain: Vec<model::Authenticator>) -> (Arc<DesiredCluster>, DesiredState) {
    let id = ClusterId::default_cluster();
    let cluster = Arc::new(DesiredCluster {
        users: users().into(),
        authenticators: Authenticators { revision: Uuid::nil(), chain }.into(),
        ..DesiredCluster::plain(id.clone(), Quota::resolve(&Plan::ALL[0], &QuotaOverrides::default()))
    });
    let clusters = [(id, Arc::clone(&cluster))].into();
    (cluster, DesiredState { revision: 1, clusters })
}

async fn ask(
    authenticator: &Arc<Authenticator>,
    (cluster, state): &(Arc<DesiredCluster>, DesiredState),
    username: &str,
    password: &str,
) -> Result<Option<Known>, NotKnown> {
    let (username, password) = (ByteString::from(username), password.as_bytes());
    let candidate = Candidate {
        client_id: "c",
        username: Some(&username),
        password: Some(password),
        peer: "192.0.2.1",
        certificates: &[],
    };
    authenticator.ask(cluster, state, candidate).await
}

#[tokio::test]
async fn an_unknown_user_costs_what_a_wrong_password_costs_and_is_answered_alike() {
    let authenticator = authenticator();
    let cluster = cluster(vec![link(1, AuthenticatorSettings::Password)]);
    let checks = || authenticator.links.verdicts.password_checks();
    for (n, (username, password)) in (1..).zip([("ada", "wrong"), ("eve", "wrong"), ("ada", ""), ("", "ada")])
    {
        assert_eq!(ask(&authenticator, &cluster, username, password).await.err(), Some(NOT_ACCEPTED));
        assert_eq!(checks(), n, "one check each");
    }
    assert!(ask(&authenticator, &cluster, "ada", "ada").await.is_ok_and(|known| known.is_some()));
    assert!(ask(&authenticator, &cluster, "ada", "ada").await.is_ok_and(|known| known.is_some()));
    assert_eq!(checks(), 5, "the second time it is remembered");
}

#[tokio::test]
async fn a_link_that_cannot_be_asked_is_passed_by_and_says_why() {
    let authenticator = authenticator();
    // Settings that this release would not have accepted, and keys that nobody may fetch.
    let broken = link(1, jwt(JwtKey::PublicKey { pem: "x".to_owned() }));
    let url = "https://issuer.example/".parse().expect("a URL");
    let away = link(2, jwt(JwtKey::JwksUrl { url }));
    let cluster = cluster(vec![broken, away, link(3, AuthenticatorSettings::Password)]);
    assert!(ask(&authenticator, &cluster, "ada", "ada").await.is_ok_and(|known| known.is_some()));
    for link in [1, 2] {
        let tally = authenticator.links.verdicts.of(Uuid::from_u128(link)).expect("asked");
        assert_eq!((tally.failures, tally.ignored), (1, 1));
        assert!(tally.last_failure.is_some_and(|(_, why)| !why.is_empty()));
    }
}

#[tokio::test]
async fn another_version_of_a_link_is_made_anew_and_one_that_is_gone_forgotten() {
    let authenticator = authenticator();
    let secret = |text: &str| jwt(JwtKey::Secret { secret: Hidden::new(text), base64: false });
    let signed = |text: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(text.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &serde_json::json!({}), &key).expect("a token")
    };
    let (old, new) = ("the old secret that is long enough", "the new secret that is long enough");
    let before = cluster(vec![link(1, secret(old))]);
    assert!(ask(&authenticator, &before, "u", &signed(old)).await.is_ok());
    let after = cluster(vec![model::Authenticator { version: 2, ..link(1, secret(new)) }]);
    assert!(ask(&authenticator, &after, "u", &signed(new)).await.is_ok());
    assert_eq!(ask(&authenticator, &after, "u", &signed(old)).await.err(), Some(NOT_ACCEPTED));
    let other = cluster(vec![link(2, secret(new))]);
    assert!(ask(&authenticator, &other, "u", &signed(new)).await.is_ok());
    assert_eq!(authenticator.links.made.lock().len(), 1);
    assert!(authenticator.links.verdicts.of(Uuid::from_u128(1)).is_none());
}
