use std::collections::BTreeMap;
use turnhook_reducer::time::Timestamp;
use super::Postgres;
use crate::{delivery::Delivery, endpoint::Backlog, ids::{DeliveryId, EndpointId}, error::{Error, Result}};
impl Postgres {
    pub(crate) async fn pending_after(&self, _: EndpointId, _: DeliveryId, _: usize) -> Result<Vec<Delivery>> { Err(Error::Closed) }
    pub(crate) async fn pending_since(&self, _: DeliveryId, _: usize) -> Result<Vec<Delivery>> { Err(Error::Closed) }
    pub(crate) async fn newest_delivery(&self) -> Result<DeliveryId> { Err(Error::Closed) }
    pub(crate) async fn newest_due(&self, _: EndpointId, _: Timestamp, _: usize) -> Result<Vec<Delivery>> { Err(Error::Closed) }
    pub(crate) async fn pending_rows(&self, _: Vec<DeliveryId>) -> Result<Vec<Delivery>> { Err(Error::Closed) }
    pub(crate) async fn still_pending(&self, _: Vec<DeliveryId>) -> Result<Vec<DeliveryId>> { Err(Error::Closed) }
    pub(crate) async fn backlog(&self) -> Result<BTreeMap<EndpointId, Backlog>> { Err(Error::Closed) }
}
