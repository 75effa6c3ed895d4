//! Certificates and signing requests that strangers show.

#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use ghost_proto::ids::NodeNumber;
use ghost_trust::Ca;
use ghost_trust::certificate::{Claims, Role, cluster_of_ca, role_uri};
use libfuzzer_sys::fuzz_target;

static CA: OnceLock<Ca> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    if let Ok(claims) = Claims::read(data) {
        assert!(role_uri(claims.cluster, claims.role).is_ascii());
    }
    let _ = cluster_of_ca(data);
    let ca = CA.get_or_init(|| Ca::create().expect("a CA"));
    if let Ok(issued) = ca.issue_node(data, NodeNumber(7), SystemTime::now(), Duration::from_secs(3600)) {
        // Whatever the request asked for, the certificate is for what the master decided.
        let claims = Claims::read(&issued.certificate).expect("our own certificate");
        assert_eq!(
            (claims.cluster, claims.role, claims.serial),
            (ca.cluster(), Role::Node(NodeNumber(7)), issued.serial)
        );
    }
});
