//! `cargo bench --bench access`: what it costs to decide whether a client may publish or subscribe, with 100
//! policies of which the last one decides, and with what was decided remembered.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // read on standard output; it measures time

use std::hint::black_box;
use std::time::Instant;

use holdfast::data_plane::broker::authorization::{Decisions, permits};
use holdfast::model::{
    AccessAction, AccessClient, AccessRequest, AccessRules, ClusterId, DesiredCluster, FilterShape, Glob,
    Plan, Policy, PolicyEffect, PolicySpec, QoS, Quota, QuotaOverrides, Resource, TopicFilter, Variables,
};

/// How often each is asked in a round; the best of five rounds counts.
const TIMES: u32 = 200_000;

fn main() -> anyhow::Result<()> {
    let filter = FilterShape::new(&TopicFilter::new("fleet/meter-17/cmd/#")?);
    let publish =
        AccessRequest::Publish { topic: "fleet/meter-17/up/power", qos: QoS::AtLeastOnce, retain: false };
    let subscribe = AccessRequest::Subscribe { filter: &filter, qos: QoS::AtLeastOnce };
    let names = Variables { client_id: "meter-17", username: Some("meter") };
    let client = AccessClient { names, address: "10.1.2.3".parse().ok() };

    let (none, by_topic, by_client) = (cluster(Vec::new()), of_topics()?, of_clients()?);
    for (name, cluster) in
        [("no policy", &none), ("100 policies, by topic", &by_topic), ("100 policies, by client", &by_client)]
    {
        anyhow::ensure!(
            permits(cluster, &[], &client, &publish) && permits(cluster, &[], &client, &subscribe)
        );
        let ask =
            |request| nanos(|| permits(black_box(cluster), &[], black_box(&client), black_box(request)));
        println!("{name:<26} publish {:>8.1} ns   subscribe {:>8.1} ns", ask(&publish), ask(&subscribe));
    }
    let mut decisions = Decisions::default();
    let AccessRequest::Publish { topic, qos, retain } = publish else { unreachable!("made above") };
    for conn in 0..10_000 {
        decisions.put(conn, topic, qos, retain, true);
    }
    let mut conn = 0;
    let remembered = nanos(|| {
        conn = (conn + 7_919) % 10_000;
        decisions.get(black_box(conn), black_box(topic), qos, retain).unwrap_or_default()
    });
    println!("remembered (10,000 clients) publish {remembered:>6.1} ns");
    Ok(())
}

/// The best of five rounds, in nanoseconds for each call.
fn nanos(mut call: impl FnMut() -> bool) -> f64 {
    let round = || {
        let began = Instant::now();
        for _ in 0..TIMES {
            black_box(call());
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
    };
    std::iter::repeat_with(round).take(5).fold(f64::INFINITY, f64::min)
}

fn policy(priority: u32, resource: &str, client_ids: Vec<Glob>) -> anyhow::Result<Policy> {
    let spec = PolicySpec {
        effect: PolicyEffect::Allow,
        actions: vec![AccessAction::Publish, AccessAction::Subscribe],
        resources: vec![Resource::new(resource)?],
        client_ids,
        usernames: Vec::new(),
        networks: Vec::new(),
        qos: Vec::new(),
        retain: None,
    };
    Ok(Policy { id: uuid::Uuid::nil(), priority, spec })
}

/// Policies whose topics are looked at.
fn of_topics() -> anyhow::Result<DesiredCluster> {
    let mut policies = (0..99)
        .map(|n| policy(n, &format!("fleet/*/team-{n}/#"), Vec::new()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    policies.push(policy(99, "fleet/${clientid}/#", Vec::new())?);
    Ok(cluster(policies))
}

/// Policies that are other clients'.
fn of_clients() -> anyhow::Result<DesiredCluster> {
    let mut policies = (0..99)
        .map(|n| policy(n, "fleet/#", vec![Glob::new(&format!("gateway-{n}-*"))?]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    policies.push(policy(99, "fleet/${clientid}/#", vec![Glob::new("meter-*")?])?);
    Ok(cluster(policies))
}

fn cluster(policies: Vec<Policy>) -> DesiredCluster {
    DesiredCluster {
        access: AccessRules { policies, ..AccessRules::default() }.into(),
        ..DesiredCluster::plain(
            ClusterId::default_cluster(),
            Quota::resolve(&Plan::ALL[0], &QuotaOverrides::default()),
        )
    }
}
