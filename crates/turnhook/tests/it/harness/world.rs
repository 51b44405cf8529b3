//! A coturn that publishes straight to a turnhook, which bills what was relayed.

use tempfile::TempDir;

use super::{
    billing::{Billing, QUICK, Session, statsdb},
    coturn::Coturn,
    program::Program,
};

pub(crate) struct World {
    pub(crate) billing: Billing,
    pub(crate) program: Program,
    pub(crate) coturn: Coturn,
    _directory: TempDir,
}

impl World {
    /// `more`: further lines of `[session]`.
    pub(crate) fn start(more: &str) -> World {
        let billing = Billing::start();
        let mut program = Program::new(&format!("{QUICK}{more}\n{}", billing.endpoint()));
        program.start();
        let directory = tempfile::tempdir().unwrap();
        let coturn = Coturn::start(directory.path(), &statsdb(&program, 0), &[]);
        World {
            billing,
            program,
            coturn,
            _directory: directory,
        }
    }

    /// The one session of a user who has hung up.
    pub(crate) fn session(&self, user: &str) -> Session {
        let mut sessions = self.billing.ended(user, 1);
        assert_eq!(sessions.len(), 1, "{sessions:#?}");
        sessions.remove(0)
    }
}
