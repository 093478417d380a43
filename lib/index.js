'use strict';

// What the package offers. Named one by one, so that `import { open }` finds them as well.

const { Holdfast, open } = require('./holdfast');
const errors = require('./errors');

exports.open = open;
exports.Holdfast = Holdfast;
exports.HoldfastError = errors.HoldfastError;
exports.LockTimeoutError = errors.LockTimeoutError;
exports.LockLostError = errors.LockLostError;
exports.ConflictError = errors.ConflictError;
exports.StaleFenceError = errors.StaleFenceError;
exports.BoundsError = errors.BoundsError;
exports.InProgressError = errors.InProgressError;
exports.MismatchError = errors.MismatchError;
exports.QuorumError = errors.QuorumError;
exports.UnavailableError = errors.UnavailableError;
exports.SqlError = errors.SqlError;
