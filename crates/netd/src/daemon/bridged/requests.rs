//! What is asked of bridged networks, one request after another.

use std::time::Duration;

use vnet_api::client::{Guests, Run};
use vnet_api::model::{AnyNetwork, BridgeChanged, BridgedNetwork, EnslaveUplink, ErrorBody};
use vnet_kernel::Routes;
use vnet_plan::uplink::Journal;
use vnet_types::{IfName, NetworkName};

use super::clock::since_boot;
use super::{Daemon, Shared};
use crate::failure::refuse;
use vnet_api::model::ErrorKind;

impl Shared {
    /// All bridged networks, by name.
    ///
    /// # Errors
    /// The host's state cannot be read.
    pub async fn bridges(&self) -> Result<Vec<BridgedNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let observed = daemon.observe(Routes::Skip).await?;
        let networks = daemon.bridged.networks.values();
        Ok(networks.map(|network| daemon.view_bridged(network, &observed)).collect())
    }

    /// One network of either sort.
    ///
    /// # Errors
    /// It is not there, or the host's state cannot be read.
    pub async fn network(&self, name: &NetworkName) -> Result<AnyNetwork, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let observed = daemon.observe(Routes::Skip).await?;
        if let Some(network) = daemon.bridged.networks.get(name) {
            return Ok(daemon.view_bridged(network, &observed).into());
        }
        Ok(daemon.view(daemon.definition(name)?, &observed).into())
    }

    /// Puts an uplink under a bridge, with all of the host's own network that was on it.
    ///
    /// # Errors
    /// The uplink cannot have a bridge, or its gateway did not answer: all is as it was then.
    pub async fn enslave(
        &self,
        request: EnslaveUplink,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        let bridge = request.bridge.clone();
        let mut daemon = self.daemon.lock().await;
        let changed = daemon.enslave(request, run).await?;
        let pending = daemon.bridged.pending.get(&bridge);
        if let Some(until) = pending.and_then(|journal| journal.confirm_until)
            && run == Run::Real
        {
            self.expire_at(bridge, until);
        }
        Ok(changed)
    }

    /// Rolls the move to `bridge` back when its time is over, unless it was confirmed before.
    fn expire_at(&self, bridge: IfName, until: u64) {
        let Some(this) = self.this.upgrade() else { return };
        tokio::spawn(async move {
            while until > since_boot() {
                tokio::time::sleep(Duration::from_secs(until - since_boot())).await;
            }
            let mut daemon = this.daemon.lock().await;
            let due = |journal: &Journal| journal.confirm_until == Some(until);
            if !daemon.bridged.pending.get(&bridge).is_some_and(due) {
                return;
            }
            tracing::warn!("{bridge} was not confirmed in time: all is put back");
            if let Err(error) = daemon.give_up(&bridge).await {
                tracing::error!("{}", error.message);
            }
        });
    }

    /// Keeps a bridge that waits to be confirmed.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn confirm(&self, bridge: &IfName) -> Result<BridgeChanged, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let Some(journal) = daemon.bridged.pending.remove(bridge) else {
            let message = format!(
                "{bridge} does not wait to be confirmed: `vnet list` shows whether it is up; if \
                 its time was over, all has been put back"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        };
        let name = journal.network.name.clone();
        let notes = daemon.commit(journal).await?;
        daemon.view_changed(&name, Vec::new(), notes).await
    }

    /// Takes an uplink from its bridge, and gives it back all of the host's own network.
    ///
    /// # Errors
    /// It is no port of that bridge, or guests are on it.
    pub async fn release(
        &self,
        bridge: &IfName,
        uplink: &IfName,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.daemon.lock().await.release(bridge, uplink, guests, run).await
    }
}

impl Daemon {
    /// The answer to a request that changed `name`.
    pub(super) async fn view_changed(
        &mut self,
        name: &NetworkName,
        plan: Vec<String>,
        notes: Vec<String>,
    ) -> Result<BridgeChanged, ErrorBody> {
        let observed = self.observe(Routes::Skip).await?;
        let network = self.bridged.networks.get(name);
        let network = network.map(|network| self.view_bridged(network, &observed));
        Ok(BridgeChanged { network, plan, notes })
    }
}
