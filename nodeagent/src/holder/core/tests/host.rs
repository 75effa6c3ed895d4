//! Programs in the node's own namespaces, whatever the master says.

use super::*;

fn creates(able: bool, uid: u32, host: bool) -> Option<bool> {
    let mut bench = Bench::new();
    if able {
        bench.core.enter_host();
    }
    let hello = bench.event(Event::Linked);
    let NodeToMaster::Hello(hello) = sent(&hello).remove(0) else { panic!("no hello") };
    assert_eq!(hello.features.iter().any(|feature| feature == HOST), able);
    bench.welcome(5);
    let program = Some(ProgramSpec { argv: vec![Bytes::from_static(b"x")], host, ..Default::default() });
    let credentials = Some(Credentials { uid, gid: uid, groups: vec![] });
    let spawn = Spawn { proc: 1, launch: 1, credentials, program, window: 8192, ..Default::default() };
    let actions = bench.message(MasterToNode::Spawn(spawn));
    actions.iter().find_map(|action| match action {
        Action::Create(creation) => Some(creation.host),
        _ => None,
    })
}

#[test]
fn only_roots_programs_enter_them() {
    assert_eq!(creates(true, 0, true), Some(true));
    assert_eq!(creates(true, 0, false), Some(false));
    assert_eq!(creates(true, 1000, true), None);
    assert_eq!(creates(false, 0, true), None);
    assert_eq!(creates(false, 1000, false), Some(false));
}
