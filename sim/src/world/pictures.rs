//! What external machines have shown of themselves, and whether it is new enough to be judged by.
//!
//! A machine that is played elsewhere tells of what changed when it sees it: what the world has of
//! it is a picture from before. Whatever is expected after some moment would be held by a picture
//! from before that moment, so each machine is asked at each fault's moments, and what it shows
//! then is newer than they are.

use super::external::Order;
use super::{Role, World};
use kubesim_runtime::Time;

impl World {
    /// A moment that expectations count from is now: external machines that are on are to show
    /// what they have. A machine that boots later is asked when it does.
    pub(super) fn ask_for_pictures(&mut self) {
        for machine in 0..self.machines.len() as u32 {
            if self.machines[machine as usize].on && self.is_external(machine) {
                self.orders.push((machine, Order::Show(self.now)));
            }
        }
    }

    /// The machine's picture was taken after it was asked at this instant.
    pub(super) fn shown_since(&mut self, machine: u32, asked: Time) {
        let shown = &mut self.machines[machine as usize].shown;
        *shown = (*shown).max(Some(asked));
    }

    /// The first node that is on and has shown nothing since an instant, so that nothing can be
    /// said of how it is after it. Modelled machines are seen as they are.
    pub fn unseen_since(&self, at: Time) -> Option<&str> {
        if !self.knobs.external {
            return None;
        }
        let nodes = self.machines.iter().filter(|host| matches!(host.role, Role::Node(_)));
        let mut unseen = nodes.filter(|host| host.on && host.shown < Some(at));
        unseen.next().map(|host| host.name.as_str())
    }

    /// The last moment that expectations count from.
    pub fn last_moment(&self) -> Time {
        let moments = |fault: &super::Happened| {
            [fault.began, fault.ended, fault.address_acquired].into_iter().flatten().max()
        };
        self.happened.iter().filter_map(moments).max().unwrap_or(Time::ZERO)
    }
}
