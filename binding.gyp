{
  # hf_sanitize=1 (script/build-asan) makes a second addon under AddressSanitizer and UBSan.
  'variables': {
    'hf_sanitize%': 0,
    'hf_warnings': ['-Wall', '-Wextra', '-Wshadow', '-Werror'],
    'hf_warnings_c': [
      '-Wpedantic',
      '-Wconversion',
      '-Wstrict-prototypes',
      '-Wmissing-prototypes',
    ],
  },
  'target_defaults': {
    'defines': ['_GNU_SOURCE'],
    # Node's own defaults come first on the command line; these two would undo what follows.
    'cflags!': ['-O3', '-Wno-unused-parameter'],
    'cflags': [
      '-fPIC',
      '-fvisibility=hidden',
      '-fstack-protector-strong',
      '-fno-omit-frame-pointer',
    ],
    'cflags_c': ['-std=c11'],
    'conditions': [
      ['hf_sanitize==1', {
        'cflags': [
          '-O1',
          '-g',
          '-fsanitize=address,undefined',
          '-fno-sanitize-recover=undefined',
        ],
        'ldflags': ['-fsanitize=address,undefined'],
      }, {
        'cflags': ['-O2', '-U_FORTIFY_SOURCE', '-D_FORTIFY_SOURCE=2'],
      }],
    ],
  },
  'targets': [
    {
      'target_name': 'holdfast',
      'dependencies': ['hiredis', 'holdfast_tls'],
      'sources': [
        '<!@(node script/sources.js c)',
        '<!@(node script/sources.js cc)',
      ],
      'include_dirs': [
        'csrc',
        'csrc/include',
        '<!(node script/sources.js deps)',
      ],
      'defines': [
        'NAPI_VERSION=9',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
        '<!@(node script/sources.js libpq-defines)',
      ],
      'cflags': [
        '<@(hf_warnings)',
        '<!@(pkg-config --cflags sqlite3 2>/dev/null || true)',
        '<!@(node script/sources.js libpq-flags)',
      ],
      'cflags_c': ['<@(hf_warnings_c)'],
      # -isystem: our warnings are for our code, not for the headers that the binding uses.
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': [
        '-std=c++17',
        '-isystem',
        '<!(node -p "require(\'path\').dirname(require.resolve(\'node-addon-api\'))")',
      ],
      # Installing the package needs the headers of SQLite and OpenSSL, but not pkg-config; and not libpq.
      'libraries': [
        '<!@(node script/sources.js openssl)',
        '<!@(pkg-config --libs sqlite3 2>/dev/null || echo -lsqlite3)',
        '<!@(node script/sources.js libpq)',
      ],
      # nodelete: a worker that ends must not unload code that a thread of ours still runs.
      # The rest keeps our symbols to ourselves and binds them to our own copies.
      'ldflags': [
        '-pthread',
        '-Wl,-z,relro,-z,now,-z,nodelete,-z,noexecstack',
        '-Wl,--exclude-libs,ALL',
        '-Wl,-Bsymbolic',
      ],
    },
    {
      # What uses OpenSSL is apart, for Node's headers come first and bring Node's OpenSSL.
      'target_name': 'holdfast_tls',
      'type': 'static_library',
      'sources': ['<!@(node script/sources.js tls)'],
      'include_dirs': [
        'csrc',
        'csrc/include',
      ],
      'include_dirs/': [['exclude', 'include/node$']],
      'cflags': ['<@(hf_warnings)'],
      'cflags_c': ['<@(hf_warnings_c)'],
    },
    {
      'target_name': 'hiredis',
      'type': 'static_library',
      'sources': ['<!@(node script/sources.js hiredis)'],
      'cflags': ['-w'],
    },
  ],
}
