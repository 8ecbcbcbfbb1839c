//! The rules port: one body of tests over the modelled kernel and over Linux, through the nft and
//! the legacy backend of iptables, and over nf_tables' netlink.

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

tell!(cluster_modelled: cluster, modelled, chains_lead_from_every_front, elements_lead_from_every_front);
tell!(cluster_nft: cluster, nft, chains_lead_from_every_front, elements_lead_from_every_front);
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
);
