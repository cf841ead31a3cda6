//! A session's messages as they are looked at, from memory and from disk.

use super::packets::*;
use super::*;
use crate::data_plane::cluster::{Answer, Browse, ColdRead, Reader};
use crate::seam::messages::{
    BrowseOf, BrowsePlace, BrowseRequest, Browsed, BrowsedMessage, ExchangePhase, ShownMessage,
};

impl World {
    /// One answer, with whatever the disk is asked for it; how often that was.
    fn browse_from(&mut self, of: BrowseOf, after: BrowsePlace, messages_max: usize) -> (Browsed, usize) {
        let client_id = ClientId::new("c").expect("an id");
        let mut browse = Browse::new(BrowseRequest { client_id, of, after, messages_max });
        for reads in 0.. {
            match self.cluster.browse(&browse).expect("a session") {
                Answer::Known(browsed) => return (browsed, reads),
                Answer::OnDisk(missing) => {
                    let reader = Reader::Asked { question: 1 };
                    let (after, through) = (missing.after, missing.through);
                    let read = ColdRead { reader, after, through, messages_max: missing.messages_max };
                    let (entries, through) = self.disk.read(&read);
                    browse.take(entries, through);
                }
            }
        }
        unreachable!("the loop ends with an answer")
    }

    /// Every message, a page of `size` at a time.
    fn browse_all(&mut self, of: BrowseOf, size: usize) -> Vec<BrowsedMessage> {
        let (mut all, mut after) = (Vec::new(), BrowsePlace::default());
        loop {
            let (Browsed { messages, next, .. }, _) = self.browse_from(of, after, size);
            assert!(messages.len() <= size);
            all.extend(messages);
            match next {
                Some(next) => {
                    assert_ne!(next, after, "it goes on");
                    after = next;
                }
                None => return all,
            }
        }
    }
}

fn said(messages: &[BrowsedMessage]) -> Vec<String> {
    let text = |message: &ShownMessage| String::from_utf8(message.payload.to_vec()).expect("text");
    messages.iter().map(|it| it.message.as_ref().map_or_else(|| "-".to_owned(), text)).collect()
}

/// A sleeper with twenty messages under filters that overlap, one that reads from memory and one from disk,
/// and one that has some in each.
fn asleep() -> Vec<World> {
    let worlds = vec![World::new(), World::forgetful(), World::remembering(2_000)];
    let fill = |mut world: World| {
        let client = world.connect(&v5("c").expiry(1_000));
        world.subscribe(client, "t/#", Q1);
        world.subscribe(client, "t/a", QoS::ExactlyOnce);
        world.cut(client);
        let publisher = world.connect(&v5("p").expiry(1_000));
        for n in 0..20 {
            let topic = if n % 2 == 0 { "t/a" } else { "t/b" };
            world.publish(publisher, publish_at(Q1, 1, topic, &n.to_string()));
            world.publish(publisher, publish_at(Q1, 1, "other", "x"));
        }
        world
    };
    worlds.into_iter().map(fill).collect()
}

#[test]
fn a_backlog_is_shown_page_by_page_as_it_will_come() {
    let numbers: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for mut world in asleep() {
        for size in [1, 3, 19, 20, 21, 1_000] {
            let all = world.browse_all(BrowseOf::Backlog, size);
            assert_eq!(said(&all), numbers, "pages of {size}");
        }
        let all = world.browse_all(BrowseOf::Backlog, 100);
        let publisher = all[0].message.as_ref().and_then(|message| message.publisher.clone());
        assert_eq!(publisher.expect("a publisher").as_str(), "p");
        assert!(all.iter().all(|it| it.position.is_some() && it.exchange.is_none() && it.qos == Q1));
        let client = world.connect(&v5("c").expiry(1_000));
        assert_eq!(texts(&world.drain(client)), numbers, "looking changed nothing");
        assert_eq!(world.browse_all(BrowseOf::Backlog, 100), []);
    }
}

#[test]
fn a_page_has_so_many_bytes_and_one_message_whatever_its_length() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(1_000));
    world.subscribe(client, "t", Q1);
    world.cut(client);
    let publisher = world.connect(&v5("p"));
    let long = "x".repeat(400_000);
    for _ in 0..5 {
        world.publish(publisher, publish_at(Q1, 1, "t", &long));
    }
    let (page, _) = world.browse_from(BrowseOf::Backlog, BrowsePlace::default(), 100);
    assert_eq!((page.messages.len(), page.next.is_some()), (2, true));
    assert_eq!(world.browse_all(BrowseOf::Backlog, 100).len(), 5);
}

#[test]
fn what_is_in_flight_is_shown_with_its_packet_id_awake_and_asleep() {
    for mut world in [World::new(), World::forgetful()] {
        let client = world.connect(&v5("c").expiry(1_000).receive_maximum(3));
        world.subscribe(client, "q1", Q1);
        world.subscribe(client, "q2", QoS::ExactlyOnce);
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, publish_at(QoS::ExactlyOnce, 1, "q2", "released"));
        world.publish(publisher, publish_at(Q1, 1, "q1", "one"));
        world.publish(publisher, publish_at(QoS::ExactlyOnce, 1, "q2", "two"));
        world.publish(publisher, publish_at(Q1, 1, "q1", "waits"));
        let sent: Vec<_> = world.take_publishes(client).iter().filter_map(|it| it.packet_id).collect();
        world.send(client, &pubrec(sent[0]));
        let check = |world: &mut World| {
            for size in [1, 2, 100] {
                let all = world.browse_all(BrowseOf::InFlight, size);
                assert_eq!(said(&all), ["-", "one", "two"]);
                let ids: Vec<_> = all.iter().filter_map(|it| Some(it.exchange.as_ref()?.packet_id)).collect();
                assert_eq!(ids.iter().map(|id| id.get()).collect::<Vec<_>>(), [1, 2, 3]);
                let phases = all.iter().filter_map(|it| Some(it.exchange.as_ref()?.phase));
                let sent = ExchangePhase::Published;
                assert!(phases.eq([ExchangePhase::Released, sent, sent]));
            }
        };
        check(&mut world);
        assert_eq!(said(&world.browse_all(BrowseOf::Backlog, 100)), ["waits"]);
        world.cut(client);
        check(&mut world);
        world.restart(0);
        check(&mut world);
    }
}

#[test]
fn what_the_log_has_lost_is_shown_without_its_message() {
    let mut world = World::forgetful();
    let client = world.connect(&v5("c").expiry(1_000).receive_maximum(2));
    world.subscribe(client, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..2);
    world.cut(client);
    world.disk.forget_messages();
    let (page, reads) = world.browse_from(BrowseOf::InFlight, BrowsePlace::default(), 10);
    assert_eq!((said(&page.messages), page.next, reads), (vec!["-".to_owned(); 2], None, 1));
}

#[test]
fn the_queue_of_a_session_that_ends_with_its_connection_is_its_backlog() {
    let mut world = World::new();
    let client = world.connect(&v5("c").receive_maximum(1));
    world.subscribe(client, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..5);
    for size in [1, 2, 100] {
        let all = world.browse_all(BrowseOf::Backlog, size);
        assert_eq!(said(&all), ["1", "2", "3", "4"]);
        assert!(all.iter().all(|it| it.position.is_none()));
    }
    assert_eq!(said(&world.browse_all(BrowseOf::InFlight, 100)), ["0"]);
}

#[test]
fn a_will_is_shown_with_the_time_when_it_is_due() {
    let mut world = World::new();
    let client_id = ClientId::new("c").expect("an id");
    assert_eq!(world.cluster.will_of(&client_id), Err(CommandError::NoSuchSession));
    let client = world.connect(&v5("c").expiry(1_000).will(will("w", "gone", 30)));
    let will = world.cluster.will_of(&client_id).expect("a session").expect("a will");
    assert_eq!((will.message.topic.as_str(), &will.message.payload[..]), ("w", &b"gone"[..]));
    assert_eq!((will.delay_secs, will.due_at), (30, None));
    world.cut(client);
    let will = world.cluster.will_of(&client_id).expect("a session").expect("a will");
    assert_eq!(will.due_at, Some(world.now.wall.plus_secs(30)));
    world.connect(&v5("c").expiry(1_000));
    assert_eq!(world.cluster.will_of(&client_id), Ok(None));
}
