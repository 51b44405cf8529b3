//! By what a message names an allocation.

use crate::message::AllocationId;

/// The key of an allocation, on its way through the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) server: u32,
    pub(crate) id: AllocationId,
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    /// Of server, number and username: a realm can be switched.
    pub(crate) hash: u64,
    pub(crate) realm_tag: u8,
}

impl<'a> Key<'a> {
    /// `hash` is that of the rest ([`Reducer::hash`]).
    pub(crate) fn with_hash(
        server: u32,
        id: AllocationId,
        realm: &'a [u8],
        username: &'a [u8],
        hash: u64,
    ) -> Key<'a> {
        let realm_tag = realm_tag(realm);
        Key {
            server,
            id,
            realm,
            username,
            hash,
            realm_tag,
        }
    }
}

/// A realm in one byte: by it most messages are found to be their allocation's without a look at the name.
pub(crate) fn realm_tag(realm: &[u8]) -> u8 {
    let [first, middle, last] = [0, realm.len() / 2, realm.len().saturating_sub(1)]
        .map(|i| realm.get(i).copied().unwrap_or_default());
    (realm.len() as u8) ^ first.rotate_left(1) ^ middle.rotate_left(3) ^ last.rotate_left(5)
}
