//! The guard of ports in step with leases: a guest may use an address from its ACK on, and may no
//! longer when the lease has ended.
//!
//! All that ask while a transaction is under way share the next one.

use std::collections::BTreeSet;
use std::sync::Weak;

use tokio::sync::{mpsc, oneshot};
use vnet_types::NetworkName;

use crate::daemon::Shared;

/// Where to ask that the guard be brought in step.
#[derive(Debug, Clone)]
pub(crate) struct Guard(mpsc::UnboundedSender<Job>);

/// The requests that wait.
#[derive(Debug)]
pub(crate) struct Requests(mpsc::UnboundedReceiver<Job>);

#[derive(Debug)]
struct Job {
    network: NetworkName,
    done: oneshot::Sender<()>,
}

impl Guard {
    pub(crate) fn new() -> (Self, Requests) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Requests(receiver))
    }

    /// Has the ports of `network` guarded by its present leases; what is returned ends when that
    /// is done.
    pub(crate) fn refresh(&self, network: &NetworkName) -> impl Future<Output = ()> + use<> {
        let (done, result) = oneshot::channel();
        // Without a receiver netd is ending.
        let _ = self.0.send(Job { network: network.clone(), done });
        async move {
            let _ = result.await;
        }
    }
}

/// Serves requests until the daemon is gone.
pub(crate) async fn serve(mut requests: Requests, daemon: Weak<Shared>) {
    while let Some(first) = requests.0.recv().await {
        let mut waiting = vec![first];
        while let Ok(more) = requests.0.try_recv() {
            waiting.push(more);
        }
        let networks: BTreeSet<_> = waiting.iter().map(|job| job.network.clone()).collect();
        let Some(daemon) = daemon.upgrade() else { return };
        daemon.guard_leases(&networks).await;
        for job in waiting {
            // One who no longer waits has nothing to be told.
            let _ = job.done.send(());
        }
    }
}

/// The leases of one network, which the guard is to know.
pub(crate) struct Leases {
    network: NetworkName,
    guard: Guard,
}

impl Leases {
    pub(crate) fn new(network: NetworkName, guard: Guard) -> Self {
        Self { network, guard }
    }

    /// Has the guard look at the leases; what is returned ends when that is done.
    pub(crate) fn refresh(&self) -> impl Future<Output = ()> + use<> {
        self.guard.refresh(&self.network)
    }
}
