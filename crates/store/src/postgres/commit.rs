use super::Postgres;
use crate::{commit::{Commit, Committed}, error::{Error, Result}};
impl Postgres {
    pub(crate) async fn commit(&self, _: &Commit) -> Result<Committed> { Err(Error::Closed) }
}
