//! What would be done, in words.

use std::collections::BTreeSet;

use vnet_plan::uplink::{
    Both, Journal, LinkFacts, LinkId, Phase, Step, give_back, prepare, relocate, remove, settle,
};

use super::moving::{back, there};

pub(super) fn plan_in_words(
    journal: &Journal,
    present: Option<&LinkFacts>,
    mtu: u32,
    confirm: Option<u64>,
) -> Vec<String> {
    // A bridge that is not there has no number yet.
    let bridge = present.map_or_else(
        || LinkId { name: journal.network.bridge.clone(), index: u32::MAX },
        |present| present.id.clone(),
    );
    let wanted = there(journal, &bridge);
    let records = journal.on_uplink.iter().chain(&journal.on_bridge).cloned().collect();
    let now = Both { port: false, records };
    let burst = Step::Burst(relocate(&journal.uplink, &bridge, &now, &wanted));
    let steps = prepare(journal, present, mtu).into_iter().chain([burst]);
    let mut plan: Vec<String> = steps.map(|step| step.to_string()).collect();
    let gateways: BTreeSet<String> = wanted
        .records
        .iter()
        .flat_map(|record| record.default_gateways(&bridge))
        .map(|gateway| gateway.to_string())
        .collect();
    for gateway in gateways {
        plan.push(format!(
            "ask the gateway {gateway} on {}; put everything back unless it answers",
            bridge.name
        ));
    }
    if let Some(seconds) = confirm {
        plan.push(format!(
            "wait for `vnet confirm {}`; put everything back after {seconds} s",
            bridge.name
        ));
    }
    plan.push(format!("write the definition of the network {}", journal.network.name));
    plan.extend(settle(journal).map(|step| step.to_string()));
    plan.extend(files_in_words(journal.files.iter().map(|file| (&file.path, &file.after))));
    plan
}

pub(super) fn release_in_words(
    journal: &Journal,
    uplink: &LinkFacts,
    bridge: &LinkFacts,
) -> Vec<String> {
    let wanted = back(journal, &uplink.id);
    let on_bridge = journal.on_uplink.iter();
    let records = on_bridge
        .filter_map(|record| record.moved(&uplink.id, &bridge.id))
        .chain(journal.on_bridge.iter().cloned())
        .collect();
    let now = Both { port: true, records };
    let mut steps = vec![
        Step::Note(Box::new(journal.clone())),
        Step::Burst(relocate(&uplink.id, &bridge.id, &now, &wanted)),
    ];
    steps.extend(give_back(journal));
    steps.extend(remove(journal, Some(bridge)));
    let mut plan: Vec<String> = steps.iter().map(ToString::to_string).collect();
    plan.extend(files_in_words(journal.files.iter().map(|file| (&file.path, &file.before))));
    if journal.phase == Phase::Releasing {
        plan.push(format!("remove the definition of the network {}", journal.network.name));
    }
    plan
}

pub(super) fn files_in_words<'a>(
    files: impl Iterator<Item = (&'a String, &'a Option<String>)>,
) -> Vec<String> {
    let one = |(path, text): (&String, &Option<String>)| match text {
        None => format!("remove /{path}"),
        Some(text) => {
            let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
            format!("write /{path}:\n{}", lines.join("\n"))
        }
    };
    files.map(one).collect()
}
