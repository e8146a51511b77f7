//! A dead node's sockets leave all rooms, the leader's too; a node that comes back serves again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::traffic;

#[tokio::test]
async fn the_sockets_of_a_dead_follower_vanish_and_it_serves_again() {
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.follower().await;
    lose_and_return(&mut cluster, &victim).await;
}

#[tokio::test]
async fn the_sockets_of_a_dead_leader_vanish_and_it_serves_again() {
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.leader().await;
    lose_and_return(&mut cluster, &victim).await;
}

async fn lose_and_return(cluster: &mut Cluster, victim: &str) {
    let mut survivors = Vec::new();
    for id in cluster.ids().iter().filter(|id| *id != victim) {
        survivors.push(cluster.client(id, "/").await);
    }
    let lost = cluster.client(victim, "/").await;
    for client in survivors.iter().chain([&lost]) {
        client.confirm("join", &["den".into()]).await.unwrap();
    }
    let survivors: Vec<_> = survivors.iter().collect();
    let everyone: Vec<_> = survivors.iter().copied().chain([&lost]).collect();
    traffic::expect_room("den", &everyone, &everyone).await;

    cluster.kill(victim);
    lost.closed().await;
    traffic::expect_room("den", &survivors, &survivors).await;

    cluster.restart(victim).await;
    let back = cluster.client(victim, "/").await;
    back.confirm("join", &["den".into()]).await.unwrap();
    let everyone: Vec<_> = survivors.iter().copied().chain([&back]).collect();
    traffic::expect_room("den", &everyone, &everyone).await;
    for speaker in &everyone {
        traffic::last_word(speaker, &everyone).await;
    }
}

#[tokio::test]
async fn a_node_that_lost_its_disk_comes_back_as_a_new_member() {
    let mut cluster = Cluster::start(3).await;
    let (survivor, victim) = cluster.roles().await;
    let ann = cluster.client(&survivor, "/").await;
    cluster.kill(&victim);
    cluster.wipe(&victim);
    cluster.restart(&victim).await;
    let bob = cluster.client(&victim, "/").await;
    bob.confirm("join", &["den".into()]).await.unwrap();
    traffic::expect_room("den", &[&ann, &bob], &[&bob]).await;
    traffic::last_word(&ann, &[&ann, &bob]).await;
}
