//! Membership with a real CA and real files; the clock is given.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ghost_trust::ca::request_certificate;
use ghost_trust::certificate::{Claims, Role};

use super::*;
use crate::init;
use ghost_proto::node_state::NodeStatus;

/// A cluster in a directory of its own.
struct Cluster {
    _dir: tempfile::TempDir,
    files: Files,
    config: Config,
    membership: Membership,
    now: SystemTime,
}

impl Cluster {
    fn new(config: &str) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { config: dir.path().join("etc/ghostd.toml"), state: dir.path().join("lib") };
        init::run(&files, None, false).unwrap();
        let config = Config::parse(config, Path::new("ghostd.toml")).unwrap();
        let membership = Membership::open(&files, &config).unwrap();
        Cluster {
            _dir: dir,
            files,
            config,
            membership,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        }
    }

    fn token(&mut self, nodes: &str, uses: u32, expires_s: u64) -> Token {
        let request = Admin::Token(TokenRequest { nodes: nodes.into(), uses, expires_s });
        let lines = self.membership.admin(&request, self.now).unwrap();
        assert_eq!(lines.len(), 1);
        lines[0].parse().unwrap()
    }

    fn join_as(&mut self, token: &Token, node: Option<i32>, hostname: &str, address: &str) -> Result<i32, JoinRefusal> {
        let (request, _key) = request_certificate().unwrap();
        let request = JoinRequest {
            version: 1,
            token_id: Bytes::copy_from_slice(&token.id.0),
            token_secret: Bytes::copy_from_slice(token.secret.as_bytes()),
            node,
            hostname: hostname.into(),
            request: request.into(),
        };
        let before = self.membership.members.clone();
        let result = self.membership.join(&request, address.parse().unwrap(), self.now);
        if result.is_err() {
            assert_eq!(self.membership.members, before, "a refusal changed the list");
        }
        let accepted = result?;
        let claims = Claims::read(&accepted.certificate).unwrap();
        assert_eq!(claims.role, Role::Node(NodeNumber(accepted.node)));
        assert_eq!(self.membership.check_peer(NodeNumber(accepted.node), claims.serial), Ok(()));
        Ok(accepted.node)
    }

    fn join(&mut self, token: &Token, node: Option<i32>) -> Result<i32, JoinRefusal> {
        self.join_as(token, node, "host", "10.9.9.9")
    }

    fn serial(&self, number: i32) -> Serial {
        match self.membership.node(NodeNumber(number)).unwrap().standing {
            Standing::Joined(serial) => serial,
            other => panic!("node {number} is {other:?}"),
        }
    }

    fn admin(&mut self, make: fn(NodeRequest) -> Admin, nodes: &str) -> Result<Vec<String>, String> {
        let before = self.membership.members.clone();
        let result = self.membership.admin(&make(NodeRequest { nodes: nodes.into() }), self.now);
        if result.is_err() {
            assert_eq!(self.membership.members, before, "a refusal changed the list");
        }
        result
    }

    fn check(&self, number: i32, serial: Serial) -> Result<(), String> {
        self.membership.check_peer(NodeNumber(number), serial).map_err(|e| e.to_string())
    }

    /// The same membership as a daemon that starts now reads it.
    fn restart(&mut self) {
        let again = Membership::open(&self.files, &self.config).unwrap();
        assert_eq!(again.members, self.membership.members, "what is on disk differs");
        self.membership = again;
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn numbers_are_given_by_wish_rule_and_order() {
    let mut cluster = Cluster::new(
        "nodes = \"4-5\"\n[[join]]\nhostname = \"n{}\"\n[[join]]\naddresses = \"10.0.0.10-10.0.0.19\"\nfirst = 20\n",
    );
    let token = cluster.token("", 20, 0);
    assert_eq!(cluster.join_as(&token, Some(9), "n3", "10.0.0.10"), Ok(9), "the wish goes before the rules");
    assert_eq!(cluster.join_as(&token, None, "n3", "10.0.0.10"), Ok(3), "the first rule goes before the second");
    assert_eq!(cluster.join_as(&token, None, "other", "10.0.0.12"), Ok(22));
    assert_eq!(cluster.join(&token, None), Ok(4), "declared ones first");
    assert_eq!(cluster.join(&token, None), Ok(5));
    assert_eq!(cluster.join(&token, None), Ok(0), "then the lowest free one");
    assert_eq!(cluster.join(&token, None), Ok(1));
    assert_eq!(cluster.join(&token, None), Ok(2));
    assert_eq!(cluster.join(&token, None), Ok(6), "3, 4 and 5 are taken");
    // A rule's number that is taken is no reason to give another one.
    assert_eq!(cluster.join_as(&token, None, "n3", "::1"), Err(JoinRefusal::Taken { number: NodeNumber(3) }));
    cluster.restart();
}

#[test]
fn a_token_is_good_for_its_nodes() {
    let mut cluster = Cluster::new("nodes = \"0-9\"");
    let token = cluster.token("2,4-5", 0, 0);
    let refusal = JoinRefusal::NotInToken { number: NodeNumber(3), nodes: "2,4-5".into() };
    assert_eq!(cluster.join(&token, Some(3)), Err(refusal));
    assert_eq!(cluster.join(&token, None), Ok(2));
    assert_eq!(cluster.join(&token, Some(5)), Ok(5));
    assert_eq!(cluster.join(&token, Some(5)), Err(JoinRefusal::Taken { number: NodeNumber(5) }));
    assert_eq!(cluster.join(&token, None), Ok(4));
    assert_eq!(cluster.join(&token, None), Err(JoinRefusal::UsedUp { id: token.id }), "three nodes, three uses");
    let token = cluster.token("2", 5, 0);
    assert_eq!(cluster.join(&token, None), Err(JoinRefusal::NoneFree));
}

#[test]
fn a_token_serves_as_often_as_it_says() {
    let mut cluster = Cluster::new("");
    let once = cluster.token("", 0, 0);
    assert_eq!(cluster.join(&once, None), Ok(0));
    cluster.restart();
    assert_eq!(cluster.join(&once, None), Err(JoinRefusal::UsedUp { id: once.id }));
    let thrice = cluster.token("", 3, 0);
    // What is refused for another reason costs no use.
    for _ in 0..5 {
        assert!(cluster.join(&thrice, Some(0)).is_err());
    }
    for number in 1..=3 {
        assert_eq!(cluster.join(&thrice, None), Ok(number));
    }
    assert_eq!(cluster.join(&thrice, None), Err(JoinRefusal::UsedUp { id: thrice.id }));
}

#[test]
fn a_token_expires() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 9, 60);
    let hour = cluster.token("", 9, 0);
    cluster.later(59);
    assert_eq!(cluster.join(&token, None), Ok(0));
    cluster.later(1);
    assert_eq!(cluster.join(&token, None), Err(JoinRefusal::Expired { id: token.id, ago: 0 }));
    cluster.later(7200);
    let refusal = cluster.join(&token, None).unwrap_err();
    assert!(refusal.to_string().contains("expired 2 h ago"), "{refusal}");
    assert_eq!(cluster.join(&hour, None), Err(JoinRefusal::Expired { id: hour.id, ago: 3660 }));
    // A week later it is forgotten when the next token is made.
    cluster.later(8 * 86_400);
    cluster.token("", 0, 0);
    assert_eq!(cluster.join(&token, None), Err(JoinRefusal::UnknownToken));
    // A master whose own clock says 1970 is no reason to fail.
    cluster.now = SystemTime::UNIX_EPOCH;
    let token = cluster.token("", 0, 60);
    assert_eq!(cluster.join(&token, None), Ok(1));
}

#[test]
fn a_wrong_secret_learns_nothing() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 0, 60);
    let wrong = Token { secret: cluster.token("", 0, 0).secret, ..token.clone() };
    let unknown = Token::generate(cluster.files.load_ca().unwrap().fingerprint()).unwrap();
    let refusal = cluster.join(&wrong, None).unwrap_err();
    assert_eq!(refusal, JoinRefusal::WrongSecret { id: token.id });
    assert_eq!(refusal.for_peer(), cluster.join(&unknown, None).unwrap_err().for_peer());
    // Not even that it has expired.
    cluster.later(3600);
    assert_eq!(cluster.join(&wrong, None).unwrap_err(), JoinRefusal::WrongSecret { id: token.id });
    for (id, secret) in [(&b""[..], &b""[..]), (&token.id.0, b""), (b"12345678", token.secret.as_bytes())] {
        let request = JoinRequest {
            token_id: Bytes::copy_from_slice(id),
            token_secret: Bytes::copy_from_slice(secret),
            hostname: "h".into(),
            ..JoinRequest::default()
        };
        let refused = cluster.membership.handle_join(&request, "::1".parse().unwrap(), cluster.now);
        assert!(matches!(refused, JoinToNode::Refused(JoinRefused { text }) if text.contains("unknown here")));
    }
}

#[test]
fn nonsense_is_refused() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 9, 0);
    for number in [-1, -2, 65_536, i32::MIN, i32::MAX] {
        assert_eq!(cluster.join(&token, Some(number)), Err(JoinRefusal::BadNumber { number }));
    }
    assert_eq!(cluster.join(&token, Some(65_535)), Ok(65_535));
    for hostname in ["", "a b", "a\nb", "\u{1b}[2J", "é", "a/b", &"x".repeat(254)] {
        assert_eq!(cluster.join_as(&token, None, hostname, "::1"), Err(JoinRefusal::BadHostname), "{hostname:?}");
    }
    let request = JoinRequest {
        token_id: Bytes::copy_from_slice(&token.id.0),
        token_secret: Bytes::copy_from_slice(token.secret.as_bytes()),
        hostname: "h".into(),
        request: Bytes::from_static(b"not a request"),
        ..JoinRequest::default()
    };
    let refusal = cluster.membership.join(&request, "::1".parse().unwrap(), cluster.now).unwrap_err();
    assert!(matches!(refusal, JoinRefusal::BadRequest(_)), "{refusal}");
    assert_eq!(cluster.join(&token, None), Ok(0), "the failed request left number 0 free");
}

#[test]
fn a_revoked_node_stays_out() {
    let mut cluster = Cluster::new("nodes = \"0-3\"");
    let token = cluster.token("", 9, 0);
    cluster.join(&token, Some(3)).unwrap();
    let serial = cluster.serial(3);
    assert_eq!(cluster.admin(Admin::RevokeNodes, "3").unwrap(), ["3: revoked"]);
    cluster.restart();
    assert!(cluster.check(3, serial).unwrap_err().contains("revoked"));
    assert_eq!(cluster.join(&token, Some(3)), Err(JoinRefusal::Revoked { number: NodeNumber(3) }));
    assert_eq!(cluster.membership.node(NodeNumber(3)).unwrap().reason(), "revoked");
    for expected in [0, 1, 2, 4] {
        assert_eq!(cluster.join(&token, None), Ok(expected), "a revoked number is not free");
    }
    // Replacing it lets a new machine in, but never the old certificate.
    cluster.admin(Admin::ReplaceNodes, "3").unwrap();
    assert!(cluster.check(3, serial).is_err());
    cluster.join(&token, Some(3)).unwrap();
    assert!(cluster.check(3, serial).is_err());
    assert_eq!(cluster.check(3, cluster.serial(3)), Ok(()));
}

#[test]
fn a_node_that_never_joined_can_be_revoked() {
    let mut cluster = Cluster::new("nodes = \"0-3\"");
    cluster.admin(Admin::RevokeNodes, "0").unwrap();
    let token = cluster.token("", 9, 0);
    assert_eq!(cluster.join(&token, None), Ok(1));
    assert_eq!(cluster.join(&token, Some(0)), Err(JoinRefusal::Revoked { number: NodeNumber(0) }));
}

#[test]
fn a_replaced_certificate_is_refused_at_once() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 99, 0);
    let mut old = Vec::new();
    for _ in 0..20 {
        cluster.join(&token, Some(3)).unwrap();
        old.push(cluster.serial(3));
        cluster.admin(Admin::ReplaceNodes, "3").unwrap();
        cluster.restart();
        for serial in &old {
            assert!(cluster.check(3, *serial).is_err());
        }
        assert!(cluster.check(3, old[old.len() - 1]).unwrap_err().contains("replaced"));
    }
    assert_eq!(cluster.membership.node(NodeNumber(3)).unwrap().reason(), "has not joined");
}

#[test]
fn a_removed_node_is_unknown() {
    let mut cluster = Cluster::new("nodes = \"0-1\"");
    let token = cluster.token("", 9, 0);
    cluster.join(&token, Some(1)).unwrap();
    cluster.join(&token, Some(7)).unwrap();
    let (one, seven) = (cluster.serial(1), cluster.serial(7));
    let lines = cluster.admin(Admin::RemoveNodes, "1,7").unwrap();
    assert_eq!(lines, ["7: removed", "1: forgotten; still declared by `nodes` in ghostd.toml"]);
    cluster.restart();
    assert!(cluster.check(7, seven).unwrap_err().contains("not a member"));
    assert!(cluster.check(1, one).is_err());
    let listed: Vec<i32> = cluster.membership.nodes().iter().map(|node| node.number.0).collect();
    assert_eq!(listed, [0, 1]);
}

#[test]
fn certificates_serve_for_their_own_number() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 9, 0);
    cluster.join(&token, Some(1)).unwrap();
    cluster.join(&token, Some(2)).unwrap();
    let (one, two) = (cluster.serial(1), cluster.serial(2));
    assert!(cluster.check(1, one).is_ok() && cluster.check(2, two).is_ok());
    assert!(cluster.check(1, two).unwrap_err().contains("not the member's"));
    assert!(cluster.check(9, one).unwrap_err().contains("not a member"));
    cluster.admin(Admin::AddNodes, "9").unwrap();
    assert!(cluster.check(9, one).unwrap_err().contains("not the member's"));
}

#[test]
fn adding_twice_changes_nothing() {
    let mut cluster = Cluster::new("nodes = \"0\"");
    let lines = cluster.admin(Admin::AddNodes, "0-3").unwrap();
    assert_eq!(lines, ["1-3: added", "0: there already, not changed"]);
    let token = cluster.token("", 9, 0);
    cluster.join(&token, Some(2)).unwrap();
    let serial = cluster.serial(2);
    assert_eq!(cluster.admin(Admin::AddNodes, "2").unwrap(), ["2: there already, not changed"]);
    assert_eq!(cluster.check(2, serial), Ok(()));
}

#[test]
fn requests_about_unknown_nodes_do_nothing() {
    let mut cluster = Cluster::new("nodes = \"0-3\"");
    for make in [Admin::RemoveNodes, Admin::RevokeNodes, Admin::ReplaceNodes] {
        let error = cluster.admin(make, "2-5").unwrap_err();
        assert!(error.starts_with("4-5: no such node"), "{error}");
        for list in ["", "up", "all", "master", "0-", "x"] {
            assert!(cluster.admin(make, list).is_err(), "{list:?}");
        }
    }
}

#[test]
fn permissions_are_those_of_a_file() {
    let all = Permissions { uid: 10, gid: 20, mode: 0o111 };
    assert!(all.allow(10, 1, &[]) && all.allow(1, 20, &[]) && all.allow(1, 1, &[]));
    let owner = Permissions { mode: 0o100, ..all };
    assert!(owner.allow(10, 1, &[]) && !owner.allow(1, 20, &[]) && !owner.allow(1, 1, &[]));
    let group = Permissions { mode: 0o010, ..all };
    assert!(group.allow(1, 20, &[]) && group.allow(1, 1, &[7, 20]) && !group.allow(1, 1, &[7]));
    // The first class that fits decides: the owner is not helped by being in the group.
    assert!(!group.allow(10, 20, &[20]));
    let others = Permissions { mode: 0o001, ..all };
    assert!(others.allow(1, 1, &[]) && !others.allow(1, 20, &[]) && !others.allow(10, 1, &[]));
    let nobody = Permissions { mode: 0o666, ..all };
    assert!(!nobody.allow(10, 20, &[]) && nobody.allow(0, 0, &[]));
}

#[test]
fn permissions_follow_the_configuration() {
    let cluster = Cluster::new(
        "nodes = \"0-3\"\n[[node]]\nnodes = \"0-2\"\nowner = 10\nmode = 0o100\n[[node]]\nnodes = \"2\"\nmode = 0o010\ngroup = 20\n",
    );
    let permissions = |number| cluster.membership.node(NodeNumber(number)).unwrap().permissions;
    assert_eq!(permissions(0), Permissions { uid: 10, gid: 0, mode: 0o100 });
    assert_eq!(permissions(2), Permissions { uid: 10, gid: 20, mode: 0o010 });
    assert_eq!(permissions(3), Permissions { uid: 0, gid: 0, mode: 0o111 });
    assert!(cluster.membership.may_use(NodeNumber(3), 1000, 1000, &[]));
    assert!(!cluster.membership.may_use(NodeNumber(0), 1000, 1000, &[]));
    assert!(!cluster.membership.may_use(NodeNumber(7), 0, 0, &[]), "a node that does not exist");
}

#[test]
fn what_is_set_at_run_time_goes_before_the_configuration_until_the_node_is_removed() {
    let mut cluster = Cluster::new("nodes = \"0-3\"\n[[node]]\nnodes = \"0\"\nowner = 10\nmode = 0o100\n");
    let both = [NodeNumber(0), NodeNumber(1)];
    for setting in [
        NodeSetting::Owner(Some(7)),
        NodeSetting::Mode(Some(0o110)),
        NodeSetting::Group(Some(20)),
        NodeSetting::Held(Some(NodeStatus::Unavailable)),
        NodeSetting::Root("/srv/image".to_owned()),
    ] {
        cluster.membership.set(&both, &setting).unwrap();
    }
    cluster.restart();
    for number in both {
        let node = cluster.membership.node(number).unwrap();
        assert_eq!(node.permissions, Permissions { uid: 7, gid: 20, mode: 0o110 });
        assert_eq!((node.held, node.root.as_str()), (Some(NodeStatus::Unavailable), "/srv/image"));
        assert_eq!(node.standing, Standing::Declared);
    }
    // Each by itself is as the configuration has it again.
    cluster.membership.set(&both, &NodeSetting::Owner(None)).unwrap();
    let permissions = cluster.membership.node(NodeNumber(0)).unwrap().permissions;
    assert_eq!(permissions, Permissions { uid: 10, gid: 20, mode: 0o110 });
    cluster.admin(Admin::RemoveNodes, "0").unwrap();
    let node = cluster.membership.node(NodeNumber(0)).unwrap();
    assert_eq!(node.permissions, Permissions { uid: 10, gid: 0, mode: 0o100 });
    assert_eq!((node.held, node.root.as_str()), (None, ""));
    // All or none.
    let error = cluster.membership.set(&[NodeNumber(1), NodeNumber(9)], &NodeSetting::Mode(Some(0))).unwrap_err();
    assert!(error.starts_with("9: no such node"), "{error}");
    assert_eq!(cluster.membership.node(NodeNumber(1)).unwrap().permissions.mode, 0o110);
}

#[test]
fn what_cannot_be_kept_has_not_happened() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 9, 0);
    std::fs::create_dir(cluster.files.state.join(".nodes.toml.new")).unwrap();
    assert!(matches!(cluster.join(&token, Some(3)), Err(JoinRefusal::NotKept(_))));
    assert!(cluster.admin(Admin::AddNodes, "0").is_err());
    assert!(cluster.membership.nodes().is_empty());
    std::fs::remove_dir(cluster.files.state.join(".nodes.toml.new")).unwrap();
    assert_eq!(cluster.join(&token, Some(3)), Ok(3));
    let mode = std::fs::metadata(cluster.files.members()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_list_does_not_hold_secrets() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("0-3", 9, 0);
    let text = std::fs::read_to_string(cluster.files.members()).unwrap();
    let hex: String = token.secret.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert!(text.contains(&token.id.to_string()), "{text}");
    assert!(!text.contains(&hex) && !text.contains(&token.to_string()));
}

#[test]
fn a_damaged_list_is_an_error() {
    let cluster = Cluster::new("");
    for damaged in [
        "version = 1\n[[node]]\nnumber = 3\n",
        "version = 1\n[[node]]\nnumber = 3\nstate = \"joined\"\n",
        "version = 1\n[[node]]\nnumber = -1\nstate = \"declared\"\n",
        "version = 1\n[[node]]\nnumber = 1\nstate = \"declared\"\n[[node]]\nnumber = 1\nstate = \"revoked\"\n",
        "version = 2\n",
        "version = 1\nother = 3\n",
        "",
        "\u{0}",
    ] {
        std::fs::write(cluster.files.members(), damaged).unwrap();
        let error = format!("{:#}", Membership::open(&cluster.files, &cluster.config).err().expect(damaged));
        assert!(error.contains("nodes.toml"), "{error}");
    }
}

#[test]
fn where_a_node_was_seen_is_kept() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 9, 0);
    cluster.join_as(&token, Some(3), "host-3.example", "10.0.0.3").unwrap();
    let serial = cluster.serial(3);
    cluster.membership.seen(NodeNumber(3), serial, "::ffff:10.0.0.4".parse().unwrap());
    cluster.restart();
    let listed = cluster.membership.node(NodeNumber(3)).unwrap();
    assert_eq!(listed.address, Some("10.0.0.4".parse().unwrap()));
    assert_eq!(listed.hostname, "host-3.example");
}

#[test]
fn tokens_have_limits() {
    let mut cluster = Cluster::new("");
    let ask = |cluster: &mut Cluster, nodes: &str, expires_s| {
        let request = Admin::Token(TokenRequest { nodes: nodes.into(), uses: 0, expires_s });
        cluster.membership.admin(&request, cluster.now)
    };
    assert!(ask(&mut cluster, "up", 0).is_err());
    assert!(ask(&mut cluster, "", u64::MAX).unwrap_err().contains("3650 days"));
    let fingerprint = cluster.files.load_ca().unwrap().fingerprint();
    for _ in 0..1000 {
        let token = Token::generate(fingerprint).unwrap();
        cluster.membership.members.tokens.add(&token, vec![], 0, 0, seconds(cluster.now)).unwrap();
    }
    assert!(ask(&mut cluster, "", 0).unwrap_err().contains("1000 valid tokens"));
    cluster.later(3601);
    assert!(ask(&mut cluster, "", 0).is_ok(), "expired ones make room");
}

#[test]
fn until_the_new_certificate_is_shown_the_old_one_is_good() {
    let mut cluster = Cluster::new("");
    let token = cluster.token("", 0, 0);
    cluster.join(&token, Some(3)).unwrap();
    let old = cluster.serial(3);
    let renew = |cluster: &mut Cluster, shown: Serial| {
        cluster.later(RENEWALS.as_secs());
        let (request, _key) = request_certificate().unwrap();
        let request = Renew { request: request.into() };
        let JoinToNode::Accepted(accepted) = cluster.membership.renew(NodeNumber(3), shown, &request, cluster.now)
        else {
            panic!("it was refused");
        };
        let claims = Claims::read(&accepted.certificate).unwrap();
        assert_eq!(claims.role, Role::Node(NodeNumber(3)));
        claims.serial
    };
    // What was given out, and got lost on its way, is of no use when another one was.
    let lost = renew(&mut cluster, old);
    let new = renew(&mut cluster, old);
    cluster.restart();
    assert_eq!((cluster.check(3, old), cluster.check(3, new)), (Ok(()), Ok(())));
    assert!(cluster.check(3, lost).unwrap_err().contains("not the member's"));
    cluster.membership.seen(NodeNumber(3), old, "10.9.9.9".parse().unwrap());
    assert_eq!((cluster.check(3, old), cluster.check(3, new)), (Ok(()), Ok(())));
    cluster.membership.seen(NodeNumber(3), new, "10.9.9.9".parse().unwrap());
    cluster.restart();
    assert_eq!(cluster.check(3, new), Ok(()));
    assert!(cluster.check(3, old).unwrap_err().contains("replaced"));
    // It asks again before it has connected by what it was given: that is all it has, should the answer get lost.
    let newer = renew(&mut cluster, new);
    renew(&mut cluster, newer);
    cluster.restart();
    assert_eq!(cluster.check(3, newer), Ok(()));
    assert!(cluster.check(3, new).unwrap_err().contains("replaced"));
    let new = newer;
    // A revocation is for both.
    let newest = renew(&mut cluster, new);
    cluster.admin(Admin::RevokeNodes, "3").unwrap();
    assert!(cluster.check(3, new).is_err() && cluster.check(3, newest).is_err());
    cluster.membership.seen(NodeNumber(3), newest, "10.9.9.9".parse().unwrap());
    assert!(cluster.check(3, newest).is_err(), "who is revoked does not come back");
    let (request, _key) = request_certificate().unwrap();
    let request = Renew { request: request.into() };
    let JoinToNode::Refused(refused) = cluster.membership.renew(NodeNumber(3), new, &request, cluster.now) else {
        panic!("it asks again and again, and gets one each time");
    };
    assert!(refused.text.contains("just now"), "{}", refused.text);
    cluster.later(RENEWALS.as_secs());
    let nonsense = cluster.membership.renew(NodeNumber(3), new, &Renew { request: "x".into() }, cluster.now);
    assert!(matches!(nonsense, JoinToNode::Refused(_)));
}
