//! Generic netlink: families by name (include/uapi/linux/genetlink.h).

use super::message::{Attributes, Messages, ne16};
use super::{Netlink, Refusal, flag};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The kernel's number for a family. ENOENT: its module is not loaded.
pub fn family(netlink: &mut Netlink, name: &str) -> Result<u16, Refusal> {
    let mut messages = Messages::default();
    messages.push_generic(CONTROL, flag::REQUEST, GET_FAMILY, |m| m.str(FAMILY_NAME, name));
    let mut found = None;
    netlink.request(&messages, |answer| {
        found = found.or(Attributes::of(answer.body).get(FAMILY_ID).and_then(ne16));
    })?;
    let absent = nix::errno::Errno::ENOENT as i32;
    found.ok_or(Refusal { sequence: 0, code: absent, text: String::new() })
}
