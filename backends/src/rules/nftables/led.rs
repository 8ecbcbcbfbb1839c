//! Chains that are there as long as some element leads to them.

use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue, Policy, Treatment};
use smol_str::{SmolStr, format_smolstr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Led {
    Treated(Treated),
    /// Remembers for so many seconds which endpoint a client got.
    Remember(u32),
}

/// A treatment of fronts that are node ports, or of those that are addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Treated {
    pub treatment: Treatment,
    pub node_port: bool,
}

const POLICIES: [Policy; 4] =
    [Policy::Inside, Policy::InsideLocal, Policy::Outside, Policy::OutsideLocal];

impl Led {
    /// The chain that an element leads to.
    pub fn by(key: &FlatKey, value: &FlatValue) -> Option<Led> {
        match (key, value) {
            (FlatKey::Service(front), FlatValue::Treatment(treatment)) => {
                let node_port = front.is_node_port();
                Some(Led::Treated(Treated { treatment: *treatment, node_port }))
            }
            (FlatKey::Sticky(_), FlatValue::Seconds(seconds)) => Some(Led::Remember(*seconds)),
            _ => None,
        }
    }

    pub fn treated(&self) -> Option<Treated> {
        match self {
            Led::Treated(treated) => Some(*treated),
            Led::Remember(_) => None,
        }
    }

    /// Of the chain.
    pub fn name(&self) -> SmolStr {
        match self {
            Led::Treated(Treated { treatment, node_port: false }) => treatment.name(),
            Led::Treated(Treated { treatment, node_port: true }) => {
                format_smolstr!("node-port-{}", treatment.name())
            }
            Led::Remember(seconds) => format_smolstr!("remember-{seconds}"),
        }
    }

    /// What a chain's name says of [`Led::Remember`].
    pub fn remember_of(name: &str) -> Option<u32> {
        name.strip_prefix("remember-")?.parse().ok()
    }
}

impl Treated {
    /// Everything about it in one number: in the map of services it is data and no verdict, since
    /// a change of verdicts makes the kernel look at all of a map's elements
    /// (`nft_table_validate`, net/netfilter/nf_tables_api.c).
    pub fn code(&self) -> u32 {
        let Treatment { policy, everywhere, here, sticky, guarded } = self.treatment;
        let here = here.min(Treatment::MOST_HERE);
        let how = policy as u32
            | u32::from(self.node_port) << 2
            | u32::from(guarded) << 3
            | u32::from(sticky) << 4;
        u32::from(everywhere) << 16 | u32::from(here) << 5 | how
    }

    pub fn from_code(code: u32) -> Self {
        let treatment = Treatment {
            policy: POLICIES[(code & 3) as usize],
            everywhere: (code >> 16) as u16,
            here: (code >> 5) as u16 & Treatment::MOST_HERE,
            sticky: code & 16 != 0,
            guarded: code & 8 != 0,
        };
        Treated { treatment, node_port: code & 4 != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_everything() {
        for policy in POLICIES {
            for (node_port, guarded, sticky) in
                [(false, false, true), (true, false, false), (false, true, false)]
            {
                let (everywhere, here) = (Treatment::MOST, Treatment::MOST_HERE);
                let treatment = Treatment { policy, everywhere, here, sticky, guarded };
                let treated = Treated { treatment, node_port };
                assert_eq!(Treated::from_code(treated.code()), treated);
            }
        }
        assert_eq!(Led::remember_of(&Led::Remember(10_800).name()), Some(10_800));
    }
}
