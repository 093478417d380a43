// @ts-ignore: whoever writes JavaScript may not have @types/express
import type { Request, RequestHandler } from 'express';
import type { Duration, Holdfast, Run } from './index.js';

/** How `idempotency` treats requests. */
export interface IdempotencyOptions {
  /** Refuse requests without a key, with 400. Default: false. */
  required?: boolean | undefined;
  /** The methods it looks at; others pass. Default: POST, PATCH, PUT and DELETE. */
  methods?: readonly string[] | undefined;
  /** The header that carries the key. Default: 'Idempotency-Key'. */
  header?: string | undefined;
  /** Bytes of the largest answer that is kept, at most 1 MiB. Default: 1 MiB. */
  maxBody?: number | undefined;
  /** How long an answer is kept. Default: '24h'. */
  ttl?: Duration | undefined;
  /** How long after a crash its request still counts as running. Default: '30s'. */
  lease?: Duration | undefined;
  /** Whether a request whose process died is refused until `hf.forget`, or run again. Default: 'fail'. */
  onCrash?: 'fail' | 'retry' | undefined;
  /** What must be equal, beside method and path, in a repetition. Default: query and body. */
  fingerprint?:
    | ((req: Request) => string | Uint8Array | Promise<string | Uint8Array>)
    | undefined;
  /** Whose key it is: equal keys of two scopes are two keys. Default: one scope for all. */
  scope?: ((req: Request) => string | Promise<string>) | undefined;
}

/**
 * Makes routes idempotent: of all requests that carry the same `Idempotency-Key` the handler runs for
 * one, and the others get its answer.
 */
export function idempotency(hf: Holdfast, options?: IdempotencyOptions): RequestHandler;

/** Names the record of a client's key, for `hf.record` and `hf.forget`. */
export function recordKey(key: string, scope?: string): string;

/** The document of a problem answer (RFC 9457) of the middleware. */
export interface IdempotencyProblem {
  type: `urn:holdfast:idempotency:${
    | 'key-missing' | 'key-malformed' | 'key-reused' | 'in-progress' | 'outcome-unknown'
    | 'answer-too-large' | 'store-unavailable' | 'outcome-not-stored'}`;
  title: string;
  status: 400 | 409 | 422 | 503;
  detail: string;
  /** With 'outcome-unknown': the record's name, for `hf.forget`. */
  record?: string;
  /** With 'answer-too-large': the status of the answer that was not kept. */
  originalStatus?: number;
}

declare global {
  namespace Express {
    interface Request {
      /** The run behind this request, where `idempotency` protects it. */
      idempotency?: Run;
    }
  }
}
