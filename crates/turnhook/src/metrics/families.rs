//! How a group of metrics is declared: each has its field, name, kind and description in one place.

/// A struct of metrics with `fn new(&mut Registry)`, which registers them. A unit behind the name is added to it.
macro_rules! families {
    ($(#[$doc:meta])* $group:ident {
        $($field:ident($name:literal $(, $unit:ident)?): $kind:ty $(= $new:expr)?, $help:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $group {
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl $group {
            pub(super) fn new(registry: &mut prometheus_client::registry::Registry) -> $group {
                let metrics = $group { $($field: families!(@new $($new)?),)* };
                $(families!(@register registry, $name, $($unit,)? $help, metrics.$field);)*
                metrics
            }
        }
    };
    (@new) => { Default::default() };
    (@new $new:expr) => { $new };
    (@register $registry:ident, $name:literal, $help:literal, $metric:expr) => {
        $registry.register($name, $help, $metric.clone())
    };
    (@register $registry:ident, $name:literal, $unit:ident, $help:literal, $metric:expr) => {
        $registry.register_with_unit($name, $help, prometheus_client::registry::Unit::$unit, $metric.clone())
    };
}

pub(super) use families;
