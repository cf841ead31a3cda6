//! Clients that have proven who they are: let in, authenticated again, and ended when their user changes
//! (PRODUCT 4; MQTT 5.0, 4.12).

use bytestring::ByteString;

use super::packets::*;
use super::*;
use crate::data_plane::protocol::Auth;
use crate::data_plane::session::authentication::scram::testing::{client_final, client_first, users};
use crate::data_plane::session::authentication::{Exchange, Nonces, SCRAM_SHA_256};
use crate::model::{EndedBy, KEY_BYTES, Users};

/// A world in which these users have their names as passwords.
fn world(names: &[&str]) -> World {
    let mut world = World::new();
    set_users(&mut world, users(names));
    world
}

fn set_users(world: &mut World, users: Users) {
    world.rules.users = users.into();
    world.cluster.set_rules(world.now, Arc::new(world.rules.clone()));
    world.settle();
}

/// Connects as a user that was proven by its password.
fn connect_as(world: &mut World, username: &str, hello: &Hello) -> Peer {
    let secrets_id = world.rules.users.get(username).expect("a user").id;
    world.proven = Some(Proven::user(username, secrets_id));
    world.knock(hello)
}

/// Connects as a user that was proven by the authentication method.
fn connect_enhanced(world: &mut World, username: &str, hello: &Hello) -> Peer {
    let mut nonces = Nonces::new([7; KEY_BYTES]);
    let first = client_first(username);
    let users = Arc::clone(&world.rules.users);
    let begun = Exchange::begin(SCRAM_SHA_256, Some(first.as_bytes()), &users, &mut nonces);
    let (exchange, ask) = begun.expect("a first message");
    let answer = step(ReasonCode::ContinueAuthentication, &client_final(username, username, &data(&ask)));
    world.proven = Some(exchange.admit(&answer, None, nonces).expect("a proof"));
    let peer = world.knock(hello);
    let connack = world.connack(peer);
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(connack.auth_method.as_deref(), Some(SCRAM_SHA_256)); // [MQTT-4.12.0-5]
    assert!(connack.auth_data.expect("data").starts_with(b"v="));
    peer
}

fn step(reason: ReasonCode, data: &str) -> Auth {
    Auth {
        reason,
        method: Some(ByteString::from_static(SCRAM_SHA_256)),
        data: Some(data.to_owned().into()),
        reason_string: None,
        user_properties: Vec::new(),
    }
}

fn data(auth: &Auth) -> Vec<u8> {
    auth.data.as_deref().expect("data").to_vec()
}

fn send(world: &mut World, peer: Peer, auth: Auth) {
    world.send(peer, &Packet::Auth(Box::new(auth)));
}

/// The AUTH that came, and nothing else has.
fn take_auth(world: &mut World, peer: Peer) -> Auth {
    match world.take(peer).as_slice() {
        [Packet::Auth(auth)] => (**auth).clone(),
        other => panic!("{other:?} is no AUTH"),
    }
}

/// Begins to authenticate again, and gives what the server asks.
fn begin_again(world: &mut World, peer: Peer, username: &str) -> Auth {
    send(world, peer, step(ReasonCode::ReAuthenticate, &client_first(username)));
    let ask = take_auth(world, peer);
    assert_eq!(ask.reason, ReasonCode::ContinueAuthentication); // [MQTT-4.12.0-2]
    ask
}

#[test]
fn the_user_that_was_proven_is_in_the_record() {
    let mut world = world(&["ada"]);
    let client = connect_as(&mut world, "ada", &v5("c").expiry(100));
    let connack = world.connack(client);
    assert_eq!((connack.reason, connack.auth_method), (ReasonCode::Success, None)); // [MQTT-4.12.0-6]
    assert_eq!(world.records.row("c").and_then(|row| row.username.clone()).as_deref(), Some("ada"));
    connect_enhanced(&mut world, "ada", &v5("d").expiry(100));
    assert_eq!(world.records.row("d").and_then(|row| row.username.clone()).as_deref(), Some("ada"));
}

#[test]
fn a_proof_that_is_void_when_it_arrives_lets_nobody_in() {
    for version in [v5("c"), v3("c"), v31("c")] {
        let mut world = world(&["ada", "bob"]);
        let secrets_id = world.rules.users.get("bob").expect("a user").id;
        world.proven = Some(Proven::user("ada", secrets_id));
        let client = world.knock(&version);
        assert_eq!(world.connack(client).reason, ReasonCode::BadUserNameOrPassword);
        assert!(world.is_closed(client) && world.records.row("c").is_none());
    }
}

#[test]
fn a_removed_user_or_another_password_ends_the_connections_of_that_user_alone() {
    let mut world = world(&["ada", "bob"]);
    let ada = connect_as(&mut world, "ada", &v5("a").expiry(100));
    let again = connect_enhanced(&mut world, "ada", &v5("a2"));
    let bob = connect_as(&mut world, "bob", &v3("b"));
    let nobody = world.connect(&v5("n"));
    world.take(ada);
    world.take(bob);

    // One more user changes nothing for those who are there.
    let more = Users { version: 1, ..users(&["ada", "bob", "eve"]) };
    set_users(&mut world, more);
    assert!(![ada, again, bob, nobody].into_iter().any(|peer| world.is_closed(peer)));

    let mut fewer = Users { lineage: Uuid::from_u128(2), ..users(&["ada", "bob"]) };
    fewer.by_name.remove("ada");
    set_users(&mut world, fewer);
    for gone in [ada, again] {
        assert_eq!(world.kicked_with(gone), ReasonCode::AdministrativeAction);
    }
    let cause = world.records.row("a").and_then(|row| row.disconnect.clone()).expect("offline, and kept");
    assert_eq!((&*cause.reason, cause.by), ("user_changed", EndedBy::Operator));
    assert!(!world.is_closed(bob) && !world.is_closed(nobody));

    let mut other = Users { lineage: Uuid::from_u128(3), ..users(&["ada", "bob"]) };
    for secrets in other.by_name.values_mut() {
        Arc::make_mut(secrets).id = Uuid::from_u128(9);
    }
    set_users(&mut world, other);
    assert!(world.is_closed(bob) && world.take(bob).is_empty(), "3.1.1 is just closed");
    assert!(!world.is_closed(nobody));
}

#[test]
fn a_client_authenticates_again_while_all_else_goes_on() {
    let mut world = world(&["ada"]);
    let client = connect_enhanced(&mut world, "ada", &v5("c"));
    for _ in 0..2 {
        let ask = begin_again(&mut world, client, "ada");
        world.send(client, &Packet::PingReq);
        assert_eq!(world.take(client), [Packet::PingResp]);
        let proof = client_final("ada", "ada", &data(&ask));
        send(&mut world, client, step(ReasonCode::ContinueAuthentication, &proof));
        let done = take_auth(&mut world, client);
        assert_eq!((done.reason, done.method.as_deref()), (ReasonCode::Success, Some(SCRAM_SHA_256)));
        assert!(data(&done).starts_with(b"v="));
    }
    world.advance(60);
    assert!(!world.is_closed(client), "nothing is overdue");
}

#[test]
fn a_client_that_fails_to_authenticate_again_is_sent_away_and_nobody_else() {
    use ReasonCode::{BadAuthenticationMethod, NotAuthorized, ProtocolError};
    let mut world = world(&["ada", "bob"]);
    let bystander = connect_enhanced(&mut world, "bob", &v5("b"));
    let mut refused = |why: &str, reason, act: &dyn Fn(&mut World, Peer)| {
        let client = connect_enhanced(&mut world, "ada", &v5("c"));
        act(&mut world, client);
        assert_eq!(world.kicked_with(client), reason, "{why}"); // [MQTT-4.12.1-2]
        assert!(!world.is_closed(bystander));
    };
    let prove = |world: &mut World, peer, username: &str, password: &str| {
        let ask = begin_again(world, peer, username);
        let proof = client_final(username, password, &data(&ask));
        send(world, peer, step(ReasonCode::ContinueAuthentication, &proof));
    };
    refused("another password", NotAuthorized, &|world, peer| prove(world, peer, "ada", "bob"));
    refused("another user", NotAuthorized, &|world, peer| prove(world, peer, "bob", "bob"));
    refused("nobody", NotAuthorized, &|world, peer| prove(world, peer, "eve", "eve"));
    refused("no SCRAM", NotAuthorized, &|world, peer| {
        send(world, peer, step(ReasonCode::ReAuthenticate, "hello"));
    });
    refused("another method [MQTT-4.12.1-1]", BadAuthenticationMethod, &|world, peer| {
        let method = Some("SCRAM-SHA-1".into());
        let auth = Auth { method, ..step(ReasonCode::ReAuthenticate, &client_first("ada")) };
        send(world, peer, auth);
    });
    refused("begun twice", ProtocolError, &|world, peer| {
        begin_again(world, peer, "ada");
        send(world, peer, step(ReasonCode::ReAuthenticate, &client_first("ada")));
    });
    refused("not begun", ProtocolError, &|world, peer| {
        send(world, peer, step(ReasonCode::ContinueAuthentication, &client_first("ada")));
    });
    refused("not finished", NotAuthorized, &|world, peer| {
        begin_again(world, peer, "ada");
        world.advance(9);
        assert!(!world.is_closed(peer));
        world.advance(2);
    });
}

#[test]
fn an_answer_that_the_client_does_not_take_ends_the_connection() {
    let mut world = world(&["ada"]);
    let mut hello = v5("c");
    // The server repeats the client's nonce: CONNACK and DISCONNECT fit, AUTH does not.
    hello.0.packet_bytes_max = std::num::NonZeroU32::new(200);
    let client = connect_enhanced(&mut world, "ada", &hello);
    let first = format!("{}{}", client_first("ada"), "x".repeat(200));
    send(&mut world, client, step(ReasonCode::ReAuthenticate, &first));
    assert_eq!(world.kicked_with(client), ReasonCode::PacketTooLarge);
}
