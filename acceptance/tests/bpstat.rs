//! bpstat's orders and forms.

use acceptance::{Cluster, Ended, User};
use serde_json::Value;

fn bpstat(cluster: &Cluster, words: &[&str]) -> String {
    cluster.command("bpstat").args(words).user(User::ordinary()).run().success()
}

#[test]
fn nodes_are_shown_in_the_order_that_was_asked_for() {
    let cluster = Cluster::attach();
    for (words, numbers) in [
        (&["-n", "2,0-1"][..], "0\n1\n2\n"),
        (&["-n", "-R", "0-2"], "2\n1\n0\n"),
        (&["-n", "-O", "2,0-1,2"], "2\n0\n1\n"),
        (&["-n", "-S", "n[2,1]"], "1\n2\n"),
    ] {
        assert_eq!(bpstat(&cluster, words), numbers, "{words:?}");
    }
}

#[test]
fn where_there_are_none_they_are_counted_as_none() {
    let cluster = Cluster::attach();
    assert_eq!(bpstat(&cluster, &["-t", "error"]), "0\n");
    assert_eq!(bpstat(&cluster, &["--json", "error"]), "{\"version\":1,\"nodes\":[]}\n");
    for (words, wanted) in
        [(["-l", "error"], "no node is error"), (["-t", "77"], "77: no such node; `bpstat` shows those that there are")]
    {
        let refused = cluster.command("bpstat").args(words).run();
        assert!(refused.error_text().contains(wanted), "{}", refused.error_text());
        refused.expect(Ended::Exited(1));
    }
}

#[test]
fn a_node_that_is_not_there_yet_says_why() {
    let cluster = Cluster::attach();
    cluster.command("bpctl").args(["nodes", "add", "90-91"]).run().success();
    let table = bpstat(&cluster, &["0,90-91"]);
    let wanted = "\
Node(s)  Status  Mode        User  Group  Reason
0        up      ---x--x--x  root  root
90-91    down    ---x--x--x  root  root   has not joined
";
    let long = bpstat(&cluster, &["-l", "90"]);
    let json: Value = serde_json::from_str(&bpstat(&cluster, &["--json", "0,90"])).expect("JSON");
    let plan = cluster.command("bpsh").args(["--dry-run", "0,90-91", "id"]).run().text();
    cluster.command("bpctl").args(["nodes", "remove", "90-91"]).run().success();
    assert_eq!(table, wanted);
    assert!(
        long.ends_with(
            "90    -        down    ---x--x--x  root  root   -     -     -       -          has not joined\n"
        ),
        "{long}"
    );
    assert_eq!((&json["version"], &json["nodes"][0]["name"]), (&1.into(), &"n0".into()));
    assert_eq!(json["nodes"][1]["reason"], "has not joined");
    let wanted = "0: would run id\n90-91: unreachable: down (has not joined); let it join, see `bpctl token --help`\n";
    assert_eq!(plan, wanted);
}

#[test]
fn the_doctor_tells_of_each_host_and_of_a_node_that_is_away() {
    let cluster = Cluster::attach();
    let all = cluster.command("bpctl").args(["doctor", "--all"]).run().success();
    for node in 0..4 {
        let heading = all.lines().position(|line| line.starts_with(&format!("node {node} (n{node}), release ")));
        let heading = heading.unwrap_or_else(|| panic!("node {node} in:\n{all}"));
        let first = all.lines().nth(heading + 1).unwrap_or_default();
        assert!(first.starts_with("  ok     connection: ") && first.ends_with(" ms there and back"), "{first}");
    }
    assert!(all.starts_with("master "), "{all}");
    assert!(all.contains("\n  ok     BTF of the kernel"), "{all}");
    let refused = cluster.command("bpctl").arg("doctor").user(User::ordinary()).run();
    assert!(refused.error_text().contains("only root"), "{}", refused.error_text());
    cluster.command("bpctl").args(["nodes", "add", "92"]).run().success();
    let away = cluster.command("bpctl").arg("doctor").run();
    cluster.command("bpctl").args(["nodes", "remove", "92"]).run().success();
    let text = away.text();
    assert!(text.contains("\nnode 92\n  BROKEN connection: has not joined: "), "{text}");
    assert!(text.ends_with(" less than it could be\n"), "{text}");
    assert!(away.error_text().contains("one thing does not work"), "{}", away.error_text());
    away.expect(Ended::Exited(1));
}
