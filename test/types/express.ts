import express, { type Request, type RequestHandler } from 'express';
import { expectTypeOf } from 'expect-type';
import { Holdfast, type Run } from 'holdfast';
import {
  idempotency, recordKey, type IdempotencyOptions, type IdempotencyProblem,
} from 'holdfast/express';

const hf = new Holdfast('memory:');
const app = express();

app.use(idempotency(hf));
app.use('/pay', idempotency(hf, {}));
app.post('/orders', express.json(), idempotency(hf, {
  required: true,
  methods: ['POST'],
  header: 'X-Request-Key',
  maxBody: 64_000,
  ttl: '7d',
  lease: 10_000,
  onCrash: 'retry',
  fingerprint: (req) => JSON.stringify(req.body),
  scope: async (req) => req.get('x-tenant') ?? 'none',
}), (req, res) => {
  expectTypeOf(req.idempotency).toEqualTypeOf<Run | undefined>();
  res.json({ attempt: req.idempotency?.attempt });
});

expectTypeOf(idempotency(hf)).toEqualTypeOf<RequestHandler>();
expectTypeOf(idempotency).parameter(1).toEqualTypeOf<IdempotencyOptions | undefined>();
expectTypeOf<NonNullable<IdempotencyOptions['scope']>>().parameter(0).toEqualTypeOf<Request>();
expectTypeOf(idempotency(hf, { scope: undefined })).toEqualTypeOf<RequestHandler>();
expectTypeOf(recordKey('k')).toEqualTypeOf<string>();
expectTypeOf(recordKey('k', 'tenant')).toEqualTypeOf<string>();

// @ts-expect-error a store is needed
idempotency();
// @ts-expect-error a URL is no Holdfast
idempotency('sqlite:./holdfast.db');
// @ts-expect-error there is no such option
idempotency(hf, { wait: 5 });
// @ts-expect-error it fails or retries
idempotency(hf, { onCrash: 'ignore' });
// @ts-expect-error a scope is a string
idempotency(hf, { scope: () => 7 });
// @ts-expect-error bytes are a number
idempotency(hf, { maxBody: '1mb' });

function explain(problem: IdempotencyProblem): string {
  if (problem.type === 'urn:holdfast:idempotency:in-progress') return 'come back later';
  // @ts-expect-error there is no such problem
  if (problem.type === 'urn:holdfast:idempotency:other') return '';
  return problem.detail;
}
expectTypeOf(explain).returns.toBeString();
