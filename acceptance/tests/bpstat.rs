//! bpstat's orders and forms.

use acceptance::{Cluster, User};
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
