//! Where the messages themselves leave something open, and the checks ask for less than the truth.

use turnhook_reducer::usage::Legs;

use super::{
    checks::Judge,
    coturn::{Key, Life},
};

impl Judge<'_> {
    pub(crate) const LEFT_OPEN: [&'static str; 3] = ["taken for old", "counted again", "under another name"];

    /// Why less is asked for than the truth, if it is.
    pub(crate) fn left_open(&self) -> Option<&'static str> {
        let [old, again, strayed] = Self::LEFT_OPEN;
        let lives = || 0..self.fleet.lives.len();
        let may_stray = |i: usize| !self.strayed(&self.fleet.lives[i].key).is_zero();
        if self.was_taken_for_old() {
            Some(old)
        } else if lives().any(|i| self.known.is_counted_again(i)) {
            Some(again)
        } else {
            lives().any(may_stray).then_some(strayed)
        }
    }

    /// What may be told of it under the name of another: where coturn seems to go on from another address, and where what
    /// had ended is forgotten, and comes once more.
    pub(super) fn strayed(&self, key: &Key) -> Legs {
        let may_be_another = |l: &&Life| {
            let kin = l.key.username == key.username && l.key.id == key.id && l.key != *key;
            kin && (self.evicted && !l.copies.is_zero() || l.key.server != key.server)
        };
        let own = self.lives_of(key);
        let unsure = |i: &usize| {
            let life = &self.fleet.lives[*i];
            self.evicted || life.has_kin && !life.heard.new
        };
        if !own.iter().any(unsure) {
            return Legs::default();
        }
        let others = self.fleet.lives.iter().filter(may_be_another);
        others.fold(Legs::default(), |sum, l| {
            let copies = if self.evicted { l.copies } else { Legs::default() };
            sum.plus(self.truth(l)).plus(self.of_source(copies))
        })
    }
}
