//! The kernel that `tests/vm/fetch-kernel` has unpacked, and its modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What iptables' nf_tables backend needs for the rules of this repository.
pub const IPTABLES: &[&str] = &[
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "nf_conntrack_netlink",
    "xt_tcpudp",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_addrtype",
    "xt_statistic",
    "xt_recent",
    "xt_physdev",
    "xt_nat",
    "xt_MASQUERADE",
    "xt_CT",
    "ipt_REJECT",
    "nft_reject_ipv4",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_numgen",
    "nft_ct",
];

pub struct Kernel {
    pub image: PathBuf,
    /// `lib/modules/VERSION`
    modules: PathBuf,
    /// Files by a module's name, and what each file needs, the nearest first
    /// (modules.dep(5)).
    files: BTreeMap<String, String>,
    needs: BTreeMap<String, Vec<String>>,
}

impl Kernel {
    pub fn find() -> Result<Kernel, String> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("vm");
        let lacks = || {
            let home = home.display();
            format!("Debian's cloud kernel in {home} (run tests/vm/fetch-kernel)")
        };
        let versions = fs::read_dir(home.join("lib/modules")).map_err(|_| lacks())?;
        let modules = versions.flatten().map(|e| e.path()).max().ok_or_else(lacks)?;
        let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = home.join(format!("boot/vmlinuz-{version}"));
        let listed = fs::read_to_string(modules.join("modules.dep")).map_err(|_| lacks())?;
        let (mut files, mut needs) = (BTreeMap::new(), BTreeMap::new());
        for (file, rest) in listed.lines().filter_map(|line| line.split_once(':')) {
            files.insert(name_of(file), file.to_owned());
            needs.insert(file.to_owned(), rest.split_whitespace().map(str::to_owned).collect());
        }
        image.exists().then_some(Kernel { image, modules, files, needs }).ok_or_else(lacks)
    }

    /// Files in the order in which they can be loaded; what is built in is left out.
    pub fn with_dependencies(&self, names: &[String]) -> Vec<String> {
        let mut order: Vec<String> = Vec::new();
        let built_in = fs::read_to_string(self.modules.join("modules.builtin")).unwrap_or_default();
        for name in names.iter().map(|name| name.replace('-', "_")) {
            let Some(file) = self.files.get(&name) else {
                let known = built_in.lines().any(|line| name_of(line) == name);
                assert!(known, "the kernel in {} has no module {name}", self.modules.display());
                continue;
            };
            let needed = self.needs.get(file).into_iter().flatten().rev().chain([file]);
            for file in needed {
                let path = format!("/lib/modules/{file}");
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        order
    }

    /// Where a file of [`Kernel::with_dependencies`] is on this machine.
    pub fn module_file(&self, inside: &str) -> PathBuf {
        self.modules.join(inside.trim_start_matches("/lib/modules/"))
    }
}

/// `kernel/net/ipv4/ipip.ko` is `ipip`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}
