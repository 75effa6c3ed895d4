//! `nodeagent renew`: another key and certificate for this node, by those that it has.
//!
//! The master takes the old certificate until the new one has been shown, so that whatever breaks on the way locks nobody out; from
//! then on the old one is refused. What runs is not touched: a session lasts longer than the certificate that it was begun with.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ghost_proto::Control;
use ghost_proto::join::JoinToNode;
use ghost_proto::node::{NodeToMaster, Renew};
use ghost_proto::words::harmless;
use ghost_trust::ca::request_certificate;
use ghost_trust::tls::{node_client_config, server_name};
use ghost_trust::{Distrust, NodeIdentity, is_broken_off};
use rustls::{ClientConnection, StreamOwned};

use crate::identity::{Identity, Store};
use crate::join::{WORDS, answer, connect};

/// Renews, and writes the new identity. Gives a line for the user.
///
/// # Errors
/// Anything on the way, with what to do; the old identity is there then, and good.
pub fn run(store: &Store) -> Result<String> {
    let old = store.load()?;
    let prepared = store.prepare()?;
    let identity = renew(&old)?;
    let number = identity.tls.number();
    prepared.save(&identity)?;
    Ok(format!(
        "node {number} has a new certificate; `systemctl reload nodeagent` (SIGHUP) puts it to use, and the old one is refused from then on"
    ))
}

fn renew(old: &Identity) -> Result<Identity> {
    let master = &old.master;
    let (request, key) = request_certificate().context("this machine's key cannot be made")?;
    let config = node_client_config(&old.tls).context("this node's certificate cannot be used")?;
    let client = ClientConnection::new(Arc::new(config), server_name())?;
    let mut tls = StreamOwned::new(client, connect(master)?);
    let explain = |error: std::io::Error| match Distrust::of_io(&error) {
        Some(reason) => anyhow!("{master} is not this node's master: {reason}; nothing was said to it"),
        None if is_broken_off(&error) => anyhow!("{master} has broken the connection off; ghostd's log there says why"),
        None => anyhow!(error).context(format!("the connection to {master} failed")),
    };
    tls.write_all(&NodeToMaster::Renew(Renew { request: request.into() }).to_frame()).map_err(explain)?;
    let accepted = match answer(&mut tls, master, explain)? {
        JoinToNode::Accepted(accepted) => accepted,
        JoinToNode::Refused(refused) => bail!("{master} refuses: {}", harmless(&refused.text, WORDS)),
    };
    let tls = NodeIdentity::new(accepted.certificate.to_vec().into(), key, old.tls.ca().clone())
        .with_context(|| format!("{master} sent a certificate that cannot be used; nothing was written"))?;
    ensure!(tls.number() == old.tls.number(), "{master} sent another node's certificate; nothing was written");
    Ok(Identity { tls, master: master.clone(), cluster: old.cluster.clone() })
}
