//! Clients for whom an authenticator vouches: let in while it is asked, for as long as it said, with rules of
//! their own (PRODUCT 4).

use super::packets::*;
use super::*;
use crate::model::{
    Acl, Authenticator, AuthenticatorSettings, Authenticators, EndedBy, Fingerprint, TlsSettings, Vouched,
};

const LINK: Uuid = Uuid::from_u128(7);

/// A world with one link, which knows clients by certificates.
fn world() -> World {
    let mut world = World::new();
    set_link(&mut world, true, &[]);
    world
}

fn set_link(world: &mut World, is_enabled: bool, revoked: &[Fingerprint]) {
    let revoked = revoked.iter().copied().collect();
    let settings = AuthenticatorSettings::Tls(TlsSettings { ca: String::new(), revoked });
    let link = Authenticator { id: LINK, position: 1, is_enabled, settings, version: 1 };
    world.last_id += 1;
    let chain = Authenticators { revision: Uuid::from_u128(world.last_id), chain: vec![link] };
    world.rules.authenticators = chain.into();
    world.cluster.set_rules(world.now, Arc::new(world.rules.clone()));
    world.settle();
}

fn vouched_for(world: &mut World, vouched: Vouched, hello: &Hello) -> Peer {
    world.proven = Some(Proven::vouched(Some("ada".into()), vouched));
    world.knock(hello)
}

fn acl(json: &serde_json::Value) -> Arc<Acl> {
    Arc::new(Acl::parse(json).expect("rules"))
}

#[test]
fn a_proof_that_has_had_its_time_ends_the_connection_and_keeps_the_session() {
    for hello in [v5("c").expiry(100), v3("c")] {
        let mut world = world();
        let expires_at = Some(world.now.wall.plus_secs(60));
        let client = vouched_for(&mut world, Vouched { expires_at, ..Vouched::by(LINK) }, &hello);
        assert_eq!(world.connack(client).reason, ReasonCode::Success);
        world.advance(59);
        assert!(!world.is_closed(client));
        world.advance(2);
        if hello.0.version.is_v5() {
            assert_eq!(world.kicked_with(client), ReasonCode::NotAuthorized);
        }
        assert!(world.is_closed(client));
        let row = world.records.row("c").expect("offline, and kept");
        assert_eq!(row.username.as_deref(), Some("ada"));
        let cause = row.disconnect.clone().expect("a cause");
        assert_eq!((&*cause.reason, cause.by), ("credentials_expired", EndedBy::Server));
    }
}

#[test]
fn a_link_that_is_not_asked_any_longer_lets_nobody_stay_or_in() {
    let mut world = world();
    let one = vouched_for(&mut world, Vouched::by(LINK), &v5("c").expiry(100));
    let print = Fingerprint([1; 32]);
    let known = Vouched { certificate: Some(print), ..Vouched::by(LINK) };
    let two = vouched_for(&mut world, known.clone(), &v5("d"));
    let nobody = world.connect(&v5("n"));
    world.take(one);
    world.take(two);
    // A certificate that is revoked is not the other's.
    set_link(&mut world, true, &[print]);
    assert_eq!(world.kicked_with(two), ReasonCode::AdministrativeAction);
    assert!(!world.is_closed(one) && !world.is_closed(nobody));
    set_link(&mut world, false, &[]);
    assert_eq!(world.kicked_with(one), ReasonCode::AdministrativeAction);
    assert!(!world.is_closed(nobody));
    // What was proven before the change and comes after it.
    let late = vouched_for(&mut world, known, &v5("d"));
    assert_eq!(world.connack(late).reason, ReasonCode::BadUserNameOrPassword);
}

#[test]
fn a_clients_own_rules_are_its_alone() {
    let mut world = world();
    let own = acl(&serde_json::json!({"subscribe": ["own/#"], "publish": ["own/#"]}));
    let bound = Vouched { acl: own, ..Vouched::by(LINK) };
    let bound = vouched_for(&mut world, bound, &v5("b"));
    let free = vouched_for(&mut world, Vouched::by(LINK), &v5("f"));
    world.take(bound);
    world.take(free);
    let wishes = || vec![wish("own/a", Q1), wish("else", Q1)];
    world.send(bound, &subscribe(1, wishes()));
    assert_eq!(world.suback(bound).reasons, [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]);
    world.send(free, &subscribe(1, wishes()));
    assert_eq!(world.suback(free).reasons, [ReasonCode::GrantedQoS1; 2]);
    world.send(bound, &Packet::Publish(publish_at(Q1, 7, "else", "m")));
    assert!(
        matches!(&world.take(bound)[..], [Packet::PubAck(ack)] if ack.reason == ReasonCode::NotAuthorized)
    );
    // A superuser's own rules bind it as little as the cluster's.
    let none = acl(&serde_json::json!([{"effect": "deny", "actions": ["subscribe"], "resources": ["#"]}]));
    let above = Vouched { is_superuser: true, acl: none, ..Vouched::by(LINK) };
    let above = vouched_for(&mut world, above, &v5("s"));
    world.take(above);
    world.send(above, &subscribe(1, wishes()));
    assert_eq!(world.suback(above).reasons, [ReasonCode::GrantedQoS1; 2]);
}
