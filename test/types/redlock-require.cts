// By require, as TypeScript calls it.

import { expectTypeOf } from 'expect-type';
import Redlock = require('holdfast/redlock');

const redlock = new Redlock(['redis://a']);
const lock: Promise<Redlock.Lock> = redlock.lock('a', 1000);
expectTypeOf(lock).resolves.toEqualTypeOf<Redlock.Lock>();
expectTypeOf(new Redlock.default(['redis://a'])).toEqualTypeOf<Redlock>();
expectTypeOf(Redlock.LockError).toBeConstructibleWith('message', 1);
