//! The guestbook's images, made of Debian's own packages: redis from `redis-server`, and a frontend
//! that busybox serves and `redis-cli` keeps (`fetch-packages` has unpacked them).

use super::image::{Image, Layout, Tar};
use std::path::{Path, PathBuf};

/// By the names that scenarios/guestbook gives them.
const IMAGES: [Image; 3] = [
    Image {
        name: "redis",
        command: &["redis-server", "--protected-mode", "no", "--save", ""],
        user: "",
    },
    Image { name: "gb-redis-follower", command: &["/bin/sh", "-c", FOLLOWER], user: "" },
    Image { name: "gb-frontend", command: &["/bin/sh", "-c", FRONTEND], user: "" },
];

const FOLLOWER: &str = "
if [ \"$GET_HOSTS_FROM\" = env ]; then master=$REDIS_MASTER_SERVICE_HOST; else master=redis-master; fi
exec redis-server --protected-mode no --save '' --replicaof $master 6379";

/// Asked to end, it serves those who have not heard of that for a while.
const FRONTEND: &str = "
trap 'busybox sleep 5; exit 0' TERM
busybox httpd -f -p 80 -h /www & wait";

/// Writes go to the master, reads to a slave, as `guestbook.php` of Kubernetes' examples has it.
const GUESTBOOK: &str = "#!/bin/sh
if [ \"$GET_HOSTS_FROM\" = env ]; then
    master=$REDIS_MASTER_SERVICE_HOST slave=$REDIS_SLAVE_SERVICE_HOST
else
    master=redis-master slave=redis-slave
fi
printf 'Content-Type: text/plain\\r\\n\\r\\n'
case $QUERY_STRING in
cmd=set*) redis-cli -h $master set messages \"${QUERY_STRING##*value=}\" ;;
*) redis-cli -h $slave get messages ;;
esac
";

/// What is not there.
pub fn missing() -> Option<&'static str> {
    let complete = folder().join("complete").exists();
    (!complete).then_some("Debian's redis (tests/port_containers/fetch-packages)")
}

pub fn images() -> Layout {
    let mut layout = Layout::of(&[], Path::new("/bin/busybox")).expect("busybox");
    let base = layout.base();
    let mut packages = Tar::default();
    packages.tree(&folder(), "").expect("the packages");
    let packages = layout.layer(packages);
    let mut pages = Tar::default();
    for name in ["www/", "www/cgi-bin/"] {
        pages.add(name, b'5', "", &[]);
    }
    pages.add("www/index.html", b'0', "", b"Guestbook\n");
    pages.add("www/cgi-bin/guestbook", b'0', "", GUESTBOOK.as_bytes());
    let pages = layout.layer(pages);
    for image in &IMAGES {
        layout.add(image, &[base.clone(), packages.clone(), pages.clone()]);
    }
    layout
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("packages")
}
