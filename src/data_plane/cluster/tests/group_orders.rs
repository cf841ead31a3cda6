//! Shared groups as operators see, move and end them.

use super::packets::*;
use super::*;
use crate::data_plane::cluster::{Answer, ColdRead, GroupMove, Reader};
use crate::model::{SharedStrategy, TopicFilter};
use crate::seam::groups::{GroupMember, GroupPlace, GroupState};

const SHARE: &str = "$share/g/t/#";

impl World {
    fn group(&mut self) -> (GroupState, Vec<GroupMember>) {
        let (told, members) = self.cluster.group_told(&filter(SHARE)).expect("a group");
        let on_disk = told.on_disk().map(|request| self.disk.count(request));
        let mut groups = told.complete(on_disk);
        assert_eq!(groups.len(), 1);
        (groups.remove(0), members)
    }

    fn move_group(&mut self, to: GroupPlace) -> Result<Seq, CommandError> {
        let mut order = GroupMove::new(filter(SHARE), to);
        let place = loop {
            match self.cluster.move_group(self.now, &mut order)? {
                Answer::Known(place) => break place,
                Answer::OnDisk(missing) => {
                    let reader = Reader::Asked { question: 1 };
                    let (after, through) = (missing.after, missing.through);
                    let read = ColdRead { reader, after, through, messages_max: missing.messages_max };
                    order.take(&self.disk.read(&read).0);
                }
            }
        };
        self.settle();
        Ok(place)
    }
}

/// Worlds in which a group of one member has consumed ten messages, a second apart.
fn consumed() -> Vec<(World, Peer, Timestamp)> {
    let worlds = vec![World::new(), World::forgetful(), World::remembering(1_000)];
    let fill = |mut world: World| {
        let member = world.connect(&v5("c").expiry(1_000_000));
        world.subscribe(member, SHARE, Q1);
        let publisher = world.connect(&v5("p").expiry(1_000_000));
        let began = world.now.wall;
        for n in 0..10 {
            world.publish(publisher, publish_at(Q1, 1, "t/a", &n.to_string()));
            world.publish(publisher, publish_at(Q1, 1, "other", "x"));
            world.advance(1);
        }
        assert_eq!(texts(&world.drain(member)), numbers(0..10));
        world.advance(5);
        (world, member, began)
    };
    worlds.into_iter().map(fill).collect()
}

#[test]
fn a_group_hands_out_again_from_the_earliest_message_on() {
    for (mut world, member, _) in consumed() {
        assert_eq!(world.cluster.log.bytes(), 0, "it needs nothing any longer");
        assert_eq!(world.group().0.lag, 0);
        assert_eq!(world.move_group(GroupPlace::Earliest), Ok(Seq::ZERO));
        assert_eq!(texts(&world.drain(member)), numbers(0..10));
        let publisher = world.connect(&v5("p").expiry(1_000_000));
        world.publish_numbers(publisher, "t/b", Q1, 10..12);
        assert_eq!(texts(&world.drain(member)), numbers(10..12), "and goes on");
        assert_eq!(world.group().0.lag, 0);
    }
}

#[test]
fn a_group_goes_to_the_first_message_of_a_time() {
    for (mut world, member, began) in consumed() {
        for first in [0_u32, 3, 9, 10] {
            let time = Timestamp::from_millis(began.as_millis() + i64::from(first) * 1_000 - 500);
            world.move_group(GroupPlace::Time(time)).expect("moved");
            assert_eq!(texts(&world.drain(member)), numbers(first as usize..10), "{first}");
        }
        let tail = world.move_group(GroupPlace::Time(world.now.wall.plus_secs(1)));
        assert_eq!(tail, Ok(world.cluster.log.tail()), "a time to come is now");
    }
}

#[test]
fn what_waits_is_passed_over_and_stays_so_over_a_restart() {
    for (mut world, member, _) in consumed() {
        world.cut(member);
        let publisher = world.connect(&v5("p").expiry(1_000_000));
        world.publish_numbers(publisher, "t/a", Q1, 10..15);
        let (group, members) = world.group();
        assert_eq!((group.lag, group.members, group.members_online, group.is_complete), (5, 1, 0, true));
        assert_eq!((members[0].client_id.as_str(), members[0].is_online), ("c", false));
        let place = world.move_group(GroupPlace::Now).expect("moved");
        assert_eq!((world.group().0.lag, world.group().0.position), (0, Some(place)));
        world.restart(1);
        let publisher = world.connect(&v5("p").expiry(1_000_000));
        world.publish_numbers(publisher, "t/a", Q1, 15..16);
        let member = world.connect(&v5("c").expiry(1_000_000));
        assert_eq!(texts(&world.drain(member)), ["15"]);
    }
}

#[test]
fn a_move_back_outlives_a_restart() {
    for (mut world, member, began) in consumed() {
        world.cut(member);
        world.move_group(GroupPlace::Time(began.plus_secs(4))).expect("moved");
        assert_eq!(world.group().0.lag, 6);
        world.restart(1);
        assert_eq!(world.group().0.lag, 6);
        let member = world.connect(&v5("c").expiry(1_000_000));
        assert_eq!(texts(&world.drain(member)), numbers(4..10));
    }
}

#[test]
fn what_a_member_holds_is_not_handed_out_beside() {
    for (mut world, member, _) in consumed() {
        let publisher = world.connect(&v5("p").expiry(1_000_000));
        world.publish_numbers(publisher, "t/a", Q1, 10..12);
        let held = world.take_publishes(member);
        assert_eq!(texts(&held), ["10", "11"]);
        let (group, members) = world.group();
        assert_eq!((group.unacknowledged, members[0].unacknowledged), (2, 2));
        world.move_group(GroupPlace::Earliest).expect("moved");
        for publish in held {
            world.send(member, &puback(publish.packet_id.expect("QoS 1")));
        }
        assert_eq!(texts(&world.drain(member)), numbers(0..10));
        // What it gives back is handed out again.
        world.publish_numbers(publisher, "t/a", Q1, 12..13);
        assert_eq!(world.take_publishes(member).len(), 1);
        world.move_group(GroupPlace::Now).expect("moved");
        world.cut(member);
        let member = world.connect(&v5("c").expiry(1_000_000));
        assert_eq!(texts(&world.drain(member)), ["12"]);
    }
}

#[test]
fn a_group_that_nobody_outlives_has_no_place() {
    let mut world = World::new();
    let member = world.connect(&v5("c"));
    world.subscribe(member, SHARE, Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/a", Q1, 0..1);
    assert_eq!(world.group().0.position, None);
    assert_eq!(world.move_group(GroupPlace::Earliest), Err(CommandError::GroupNotKept));
    world.leave(member);
    assert_eq!(world.move_group(GroupPlace::Now), Err(CommandError::NoSuchGroup));
}

#[test]
fn ending_a_group_takes_its_subscription_from_every_member() {
    let mut world = World::new();
    let online = world.connect(&v5("online").expiry(1_000));
    world.subscribe(online, SHARE, Q1);
    world.subscribe(online, "own", Q1);
    let asleep = world.connect(&v5("asleep").expiry(1_000));
    world.subscribe(asleep, SHARE, Q1);
    world.cut(asleep);
    let end = |world: &mut World, force| {
        world.last_command += 1;
        let id = CommandId(world.last_command);
        let ended = world.cluster.end_group(world.now, id, &filter(SHARE), force);
        world.settle();
        ended
    };
    assert_eq!(end(&mut world, false), Err(CommandError::GroupHasMembers { members: 2 }));
    assert_eq!(world.cluster.subscription_count(), 3);
    assert_eq!(end(&mut world, true), Ok(2));
    assert!(matches!(world.answers.pop(), Some((_, Ok(_)))), "answered when the records are committed");
    assert_eq!(world.cluster.subscription_count(), 1);
    assert_eq!(end(&mut world, true), Err(CommandError::NoSuchGroup));
    world.restart(1);
    assert_eq!(world.cluster.subscription_count(), 1);
}

#[test]
fn a_group_may_choose_in_a_way_of_its_own() {
    let mut world = World::new();
    let members: Vec<Peer> = ["a", "b", "c", "d"].iter().map(|id| world.connect(&v5(id))).collect();
    for member in &members {
        world.subscribe(*member, SHARE, Q1);
        world.subscribe(*member, "$share/other/t/#", Q1);
    }
    world.rules.group_strategies = [(filter(SHARE), SharedStrategy::HashTopic)].into();
    world.cluster.set_rules(world.now, Arc::new(world.rules.clone()));
    assert_eq!(world.group().0.strategy, SharedStrategy::HashTopic);
    let told = world.cluster.groups_told("", 10).complete(None);
    let strategies: Vec<_> = told.iter().map(|it| (it.share.as_str(), it.strategy)).collect();
    assert_eq!(
        strategies,
        [(SHARE, SharedStrategy::HashTopic), ("$share/other/t/#", SharedStrategy::Random)]
    );
    assert_eq!(world.cluster.groups_told(SHARE, 10).complete(None).len(), 1);
    let other = TopicFilter::new("$share/nobody/t").expect("a filter");
    assert_eq!(world.cluster.group_told(&other).map(drop), Err(CommandError::NoSuchGroup));
    // One topic: the group that hashes gives all to one member, the other one spreads them.
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/a", Q1, 0..40);
    let mut counts: Vec<usize> = members.iter().map(|member| world.drain(*member).len()).collect();
    counts.sort_unstable();
    assert_eq!(counts.iter().sum::<usize>(), 80);
    assert!(counts[3] >= 40 && counts[0] < 40, "{counts:?}");
}
