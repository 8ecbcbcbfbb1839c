//! A treatment as the kernel has it: a number in the map of services, and a chain.

use kubesim_actors::ports::rules::flat::{Policy, Treatment};
use smol_str::{SmolStr, format_smolstr};

/// A treatment of fronts that are node ports, or of those that are addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Treated {
    pub treatment: Treatment,
    pub node_port: bool,
}

const POLICIES: [Policy; 4] =
    [Policy::Inside, Policy::InsideLocal, Policy::Outside, Policy::OutsideLocal];

impl Treated {
    /// Everything about it in eight bytes: in the map of services it is data and no verdict, since
    /// a change of verdicts makes the kernel look at all of a map's elements
    /// (`nft_table_validate`, net/netfilter/nf_tables_api.c).
    pub fn code(&self) -> [u8; 8] {
        let Treatment { policy, everywhere, here, affinity, guarded } = self.treatment;
        let counts = u32::from(everywhere) << 16 | u32::from(here);
        let how = policy as u32 | u32::from(self.node_port) << 2 | u32::from(guarded) << 3;
        let code = u64::from(counts) << 32 | u64::from(how | affinity << 4);
        code.to_be_bytes()
    }

    pub fn from_code(code: &[u8]) -> Option<Self> {
        let code = u64::from_be_bytes(code.try_into().ok()?);
        let (counts, how) = ((code >> 32) as u32, code as u32);
        let treatment = Treatment {
            policy: POLICIES[(how & 3) as usize],
            everywhere: (counts >> 16) as u16,
            here: counts as u16,
            affinity: how >> 4,
            guarded: how & 8 != 0,
        };
        Some(Treated { treatment, node_port: how & 4 != 0 })
    }

    /// Of its chain.
    pub fn name(&self) -> SmolStr {
        let name = self.treatment.name();
        if self.node_port { format_smolstr!("node-port-{name}") } else { name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_everything() {
        for policy in POLICIES {
            for (node_port, guarded) in [(false, false), (true, false), (false, true)] {
                let treatment =
                    Treatment { policy, everywhere: 65_535, here: 3, affinity: 86_400, guarded };
                let treated = Treated { treatment, node_port };
                assert_eq!(Treated::from_code(&treated.code()), Some(treated));
            }
        }
        assert_eq!(Treated::from_code(&[1]), None);
    }
}
