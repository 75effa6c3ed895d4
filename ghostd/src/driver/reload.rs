//! SIGHUP: the configuration is read again, and what has changed in it is said in the log.
//!
//! Invariant: a file with a mistake changes nothing.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sd_notify::NotifyState;

use super::{Event, Shared, metrics};
use crate::config::Config;
use crate::files::Files;

/// Reads the file again, and does what it says. `running` is what counts, before and after.
pub(super) fn reload(shared: &Shared, files: &Files, socket: &Path, running: &mut Config) {
    // Type=notify-reload waits for the ready behind this; other services do not mind.
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    let _ = sd_notify::notify(&states);
    match Config::load(&files.config) {
        Ok(new) => apply(shared, socket, running, new),
        Err(mistake) => tracing::error!("the configuration stays as it is: {mistake}"),
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

fn apply(shared: &Shared, socket: &Path, running: &mut Config, new: Config) {
    let changes = running.changes(&new);
    if changes.is_empty() {
        tracing::info!("the configuration was read again: nothing has changed");
    }
    for change in &changes {
        tracing::info!(key = change.key, "configuration: {change}");
    }
    let new = new.without_a_start(running);
    if new.log != running.log
        && let Err(why) = ghost_log::change(&new.log)
    {
        tracing::error!("the log stays as it is: {why}");
    }
    if new.socket_mode != running.socket_mode
        && let Err(why) = set_permissions(socket, Permissions::from_mode(new.socket_mode))
    {
        tracing::error!("socket {}: {why}", socket.display());
    }
    if new.metrics_listen != running.metrics_listen {
        metrics::open(shared, new.metrics_listen);
    }
    let mut driver = shared.borrow_mut();
    driver.membership.configure(&new);
    driver.dismiss_refused();
    if (&new.node_up, new.node_up_limit) != (&running.node_up, running.node_up_limit) {
        driver.node_ups.configure(&new);
        driver.events.push_back(Event::NodeUpSwitched { on: new.node_up.is_some() });
    }
    if new.view != running.view {
        driver.events.push_back(Event::ViewSwitched { on: new.view });
    }
    driver.settle();
    *running = new;
}
