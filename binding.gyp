{
  # hf_sanitize=1 (script/build-asan) makes a second addon under AddressSanitizer and UBSan.
  'variables': {
    'hf_sanitize%': 0,
  },
  'targets': [
    {
      'target_name': 'holdfast',
      'sources': [
        '<!@(node script/sources.js c)',
        '<!@(node script/sources.js cc)',
      ],
      'include_dirs': [
        'csrc',
        'csrc/include',
      ],
      'defines': [
        '_GNU_SOURCE',
        'NAPI_VERSION=9',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      # Node's own defaults come first on the command line; these two would undo what follows.
      'cflags!': ['-O3', '-Wno-unused-parameter'],
      'cflags': [
        '-fPIC',
        '-fvisibility=hidden',
        '-fstack-protector-strong',
        '-fno-omit-frame-pointer',
        '-Wall',
        '-Wextra',
        '-Wshadow',
        '-Werror',
        '<!@(pkg-config --cflags sqlite3 2>/dev/null || true)',
      ],
      'cflags_c': [
        '-std=c11',
        '-Wpedantic',
        '-Wconversion',
        '-Wstrict-prototypes',
        '-Wmissing-prototypes',
      ],
      # -isystem: our warnings are for our code, not for the headers that the binding uses.
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': [
        '-std=c++17',
        '-isystem',
        '<!(node -p "require(\'path\').dirname(require.resolve(\'node-addon-api\'))")',
      ],
      # Installing the package needs SQLite's headers, but not pkg-config.
      'libraries': ['<!@(pkg-config --libs sqlite3 2>/dev/null || echo -lsqlite3)'],
      # nodelete: a worker that ends must not unload code that a thread of ours still runs.
      # The rest keeps our symbols to ourselves and binds them to our own copies.
      'ldflags': [
        '-pthread',
        '-Wl,-z,relro,-z,now,-z,nodelete,-z,noexecstack',
        '-Wl,--exclude-libs,ALL',
        '-Wl,-Bsymbolic',
      ],
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
  ],
}
