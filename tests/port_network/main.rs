//! The network port: its driver on Linux does what its model in the simulator does. Each body here
//! runs twice, on the model and on this machine's kernel in a network namespace of its own.

#![cfg(target_os = "linux")]

#[path = "../common/namespace.rs"]
mod namespace;

mod facts;
mod histories;
mod kernel;
mod links;
mod linux;
mod model;
mod routes;
mod tables;
mod world;

/// Two tests of each body.
macro_rules! alike {
    ($($room:ident::$body:ident)*) => {
        mod on_the_model {
            $(#[test] fn $body() { crate::$room::$body(&mut crate::model::Model::new()); })*
        }
        mod on_linux {
            $(#[test] fn $body() {
                let body = || crate::$room::$body(&mut crate::linux::Linux::new());
                crate::namespace::in_namespace(body);
            })*
        }
    };
}

alike! {
    links::a_bridge_is_made_and_corrected
    links::a_bridge_keeps_its_mtu_and_its_mac_whatever_its_ports_have
    links::a_vxlan_device_is_made_and_corrected
    links::links_are_deleted_by_name
    routes::routes_become_exactly_these
    routes::foreign_routes_are_left_alone
    routes::what_is_refused_is_said_and_the_rest_done
    routes::a_gateway_may_lie_within_a_route_of_the_same_set
    routes::a_set_need_not_be_in_order
    routes::the_routes_of_an_address_go_with_it_and_that_is_told
    routes::while_an_address_is_left_the_routes_stay
    routes::routes_go_with_their_link
    routes::what_others_do_under_our_tag_is_told_and_put_right
    routes::our_own_routes_are_no_news
    routes::who_starts_anew_adopts_what_is_there
    routes::the_default_route_has_the_lowest_metric
    tables::neighbours_become_exactly_these
    tables::neighbours_go_with_their_link
    tables::fdb_entries_become_exactly_these
    tables::tables_are_adopted
    facts::forwarding_is_carried_to_links_only_when_all_changes
    facts::sysctls_are_read_and_written
    facts::bridged_packets_walk_iptables_when_told
}
