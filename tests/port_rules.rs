//! The rules port: one body of tests over the modelled kernel and over Linux, through the nft and
//! the legacy backend of iptables, over nf_tables' netlink, and over IPVS' in a small virtual
//! machine.

#![cfg(target_os = "linux")]

#[path = "port_rules/cluster.rs"]
mod cluster;
#[path = "port_rules/flat.rs"]
mod flat;
#[path = "port_rules/linux.rs"]
mod linux;
#[path = "port_rules/machine.rs"]
mod machine;
#[path = "port_rules/model.rs"]
mod model;
#[path = "port_rules/stories.rs"]
mod stories;
#[path = "port_rules/virtuals.rs"]
mod virtuals;
#[path = "vm/mod.rs"]
mod vm;

use std::time::{Duration, Instant};

/// A module of tests: each story in the model, or on Linux with a backend of iptables.
macro_rules! tell {
    ($module:ident: $stories:ident, $how:expr, $($story:ident),* $(,)?) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $story() {
                $how($stories::$story, $stories::$story);
            })*
        }
    };
}

fn modelled(story: fn(&mut model::Model), _: fn(&mut linux::Linux)) {
    story(&mut model::Model::new());
}

fn nft(_: fn(&mut model::Model), story: fn(&mut linux::Linux)) {
    linux::run("nft", story);
}

fn legacy(_: fn(&mut model::Model), story: fn(&mut linux::Linux)) {
    linux::run("legacy", story);
}

macro_rules! chains {
    ($($story:ident),* $(,)?) => {
        tell!(chains_modelled: stories, modelled, $($story),*);
        tell!(chains_nft: stories, nft, $($story),*);
        tell!(chains_legacy: stories, legacy, $($story),*);
    };
}

macro_rules! elements {
    ($($story:ident),* $(,)?) => {
        tell!(flat_modelled: flat, modelled, $($story),*);
        tell!(flat_linux: flat, nft, $($story),*);
    };
}

/// Stories of ipvs mode: each in the model; on Linux all in one machine, one after the other.
macro_rules! services {
    ($($module:ident: $story:ident),* $(,)?) => {
        mod virtual_modelled {
            use super::*;
            $(#[test]
            fn $story() {
                $module::$story(&mut model::Model::new());
            })*
        }
        const SERVICES: &[(&str, fn(&mut linux::Linux))] =
            &[$((stringify!($story), $module::$story)),*];
    };
}

services!(
    virtuals: endpoints_take_turns,
    virtuals: endpoints_come_and_go,
    virtuals: without_endpoints_it_is_refused,
    virtuals: other_fronts_lead_to_the_same_endpoints,
    virtuals: clients_come_back_to_their_endpoint,
    virtuals: a_neighbour_keeps_its_address,
    virtuals: tcp_is_drained,
    virtuals: services_are_adopted_and_put_back,
    cluster: virtual_services_lead_from_every_front,
);

#[test]
fn virtual_services_on_linux() {
    if vm::inside() {
        for (name, story) in SERVICES {
            let begun = Instant::now();
            linux::run("nft", *story);
            println!("{name}: {:?}", begun.elapsed());
        }
        return;
    }
    let programs = ["ip", "nft", "iptables", "ipvsadm"];
    let Some(vm) = vm::Vm::new(&programs) else { return };
    let vm = vm.modules(&["ip_vs_rr", "dummy", "veth"]);
    let done = vm.run_this_test("virtual_services_on_linux", Duration::from_secs(150));
    assert!(done.succeeded(), "{done}");
    println!("{}{:?} in all", done.output, done.took);
}

elements!(
    a_service_leads_to_all_its_endpoints,
    endpoints_come_and_go,
    without_endpoints_it_is_refused,
    other_fronts_lead_to_the_same_endpoints,
    clients_come_back_to_their_endpoint,
    local_policies_go_by_the_nodes_own,
    strangers_are_kept_out,
    a_table_is_adopted_and_put_back,
);

tell!(cluster_modelled: cluster, modelled,
    chains_lead_from_every_front,
    elements_lead_from_every_front,
);
tell!(cluster_nft: cluster, nft,
    chains_lead_from_every_front,
    elements_lead_from_every_front,
);
tell!(cluster_legacy: cluster, legacy, chains_lead_from_every_front);

chains!(
    chains_are_applied_changed_and_removed,
    local_chains_stand_in_for_shared_ones,
    base_rules_stand_around_foreign_ones,
    counters_are_kept,
    what_others_flush_is_missed_and_put_back,
    a_new_life_writes_nothing_where_all_is_as_it_should_be,
    what_a_former_life_left_goes_and_what_is_foreign_stays,
    two_owners_do_not_touch_each_other,
    a_refusal_names_the_rule_and_the_next_apply_is_clean,
    foreign_rules_are_read,
    golden_files_go_through,
    connections_are_listed_and_deleted,
    connections_from_before_the_rules_are_found,
    what_makes_no_sense_is_refused,
);
