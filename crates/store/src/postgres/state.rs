use turnhook_reducer::{state::Table, time::Timestamp};
use super::Postgres;
use crate::{ids::SourceId, error::{Error, Result}};
impl Postgres {
    pub(crate) async fn load<T, F>(&self, _: SourceId, _: T, _: F) -> Result<(T, Option<Timestamp>)>
    where T: Send + 'static, F: FnMut(&mut T, Table, u64, &[u8]) + Send + 'static { Err(Error::Closed) }
}
