//! The rules port: one body of tests over the modelled kernel and over Linux, through the nft and
//! the legacy backend of iptables.

#[path = "port_rules/linux.rs"]
mod linux;
#[path = "port_rules/machine.rs"]
mod machine;
#[path = "port_rules/model.rs"]
mod model;
#[path = "port_rules/stories.rs"]
mod stories;

macro_rules! everywhere {
    ($($story:ident),* $(,)?) => {
        mod modelled {
            $(#[test]
            fn $story() {
                super::stories::$story(&mut super::model::Model::new());
            })*
        }
        mod nft {
            $(#[test]
            fn $story() {
                super::linux::run("nft", super::stories::$story);
            })*
        }
        mod legacy {
            $(#[test]
            fn $story() {
                super::linux::run("legacy", super::stories::$story);
            })*
        }
    };
}

everywhere!(
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
