//! How long a server takes to come up with many leases:
//! `cargo run --release -p vnet-dhcp --example load [LEASES]`.

use std::net::Ipv4Addr;
use std::time::Instant;

use vnet_dhcp::{Lease, LeaseState, Server, ServerConfig, journal};
use vnet_types::{MacAddr, NetworkDefinition};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let leases: u32 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let text = r#"{"name":"big","mode":"nat","bridge":"virbr9","subnet":"10.0.0.0/8",
        "domain":"big.vnet","dhcp":{"range":"10.0.0.2-10.255.255.254"}}"#;
    let network: NetworkDefinition = serde_json::from_str(text)?;
    let mac = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([0x52, a, b, 0, c, d])
    };
    let lease = |number: u32| -> Result<Lease, Box<dyn std::error::Error>> {
        Ok(Lease {
            ip: Ipv4Addr::from(0x0a00_0002 + number),
            client: format!("id:ff{number:08x}").parse()?,
            mac: mac(number),
            hostname: Some(format!("guest-{number}").parse()?),
            state: LeaseState::Bound,
            expires: u64::from(u32::MAX),
        })
    };
    let all: Vec<Lease> = (0..leases).map(lease).collect::<Result<_, _>>()?;
    let bytes = journal::snapshot(&all);
    let start = Instant::now();
    let replay = journal::replay::<Lease>(&bytes);
    let read = start.elapsed();
    let Some(config) = ServerConfig::for_network(&network, mac(0)) else { return Ok(()) };
    let server = Server::new(config, replay.leases.into_values())?;
    let whole = start.elapsed();
    println!(
        "{} leases, {} bytes: read in {read:?}, served after {whole:?}",
        server.leases().len(),
        bytes.len()
    );
    Ok(())
}
