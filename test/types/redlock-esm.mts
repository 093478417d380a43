// From a module of ECMAScript.

import { expectTypeOf } from 'expect-type';
import Redlock, { ExecutionError, Lock, type Settings } from 'holdfast/redlock';
import * as everything from 'holdfast/redlock';

const redlock = new Redlock(['redis://a'], { retryCount: 1 } satisfies Partial<Settings>);
expectTypeOf(redlock.acquire(['a'], 1000)).resolves.toEqualTypeOf<Lock>();
expectTypeOf(new ExecutionError('m', []).attempts.length).toBeNumber();
expectTypeOf(new everything.default(['redis://a'])).toEqualTypeOf<Redlock>();
expectTypeOf(new everything.Redlock(['redis://a'])).toEqualTypeOf<Redlock>();
