# A parsed request to the environ of PEP 3333.

from libc.stdint cimport int64_t

from fastwsgi._content cimport Input
from fastwsgi._parser cimport parser_t
from fastwsgi._router cimport route_t
from fastwsgi._trust cimport forwarded_t


cdef dict environ_template(str server_name, str server_port, bint multithread, bint multiprocess,
                           object errors, object file_wrapper, str software, bint is_tls=*,
                           bint hints_early=*)
# early_hints: None, if the template has no such key.
# Everything is borrowed for the call. input is None when there is no content; content_size: of the received content, -1
# when the request announced none.
cdef dict environ_build(dict template, const parser_t* parser, const char* data,
                        const char* peer, size_t peer_size, int peer_port, Input input, int64_t content_size,
                        object client_gone, object early_hints)
# For a connection with a PROXY protocol header (then peer is who has sent that), or a request whose forwarded is set.
cdef int environ_forward(dict environ, const parser_t* parser, const char* data, const forwarded_t* forwarded,
                         const char* peer) except -1
# After both, for a request that has a route: the path as that has it, and what of it is SCRIPT_NAME. is_odd: the path
# is not the one that was matched.
cdef int environ_mount(dict environ, const route_t* route, bint is_odd) except -1
