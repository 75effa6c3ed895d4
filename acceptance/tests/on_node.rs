//! Commands on a node work as on the master.

use acceptance::{Cluster, Ended, User};

#[test]
fn bpstat_shows_on_a_node_what_it_shows_on_the_master() {
    let cluster = Cluster::attach();
    let bpstat = |words: &[&str]| cluster.command("bpsh").args(words).user(User::ordinary()).run().success();
    let here = cluster.command("bpstat").arg("-l").user(User::ordinary()).run().success();
    assert_eq!(bpstat(&["1", "bpstat -l"]), here);
    // By a program's program, and by many at once.
    assert_eq!(bpstat(&["2", "sh -c 'bpstat -l; true'; true"]), here);
    let counts = bpstat(&["-a", "for i in 1 2 3 4 5 6 7 8; do bpstat -t up & done; wait"]);
    assert_eq!(counts.lines().collect::<Vec<_>>(), vec!["5"; 40]);
}

#[test]
fn who_is_none_of_the_clusters_is_refused() {
    let cluster = Cluster::attach();
    let finished = cluster.node(1).command("bpstat").user(User::ordinary()).run();
    assert_eq!(finished.ended, Ended::Exited(1), "{}", finished.error_text());
    assert!(finished.error_text().contains("only programs that the cluster runs here"), "{}", finished.error_text());
}

#[test]
fn who_has_become_another_user_there_asks_for_nobody() {
    let cluster = Cluster::attach();
    let ask = |user: &str, command: &str| {
        let script = format!("exec setpriv --reuid {user} --regid {user} --clear-groups {command}");
        cluster.command("bpsh").args(["1", &script]).user(User::root()).run()
    };
    let finished = ask("1001", "bpstat");
    assert_ne!(finished.ended, Ended::Exited(0));
    assert!(finished.error_text().contains("runs as uid 1001"), "{}", finished.error_text());
    assert_eq!(ask("0", "bpstat").ended, Ended::Exited(0), "root's own may");
    let finished = ask("0", "bpctl token");
    assert_eq!(finished.text(), "");
    assert!(finished.error_text().contains("administered on the master"), "{}", finished.error_text());
}
