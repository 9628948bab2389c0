# A parsed request to the environ of PEP 3333.

from libc.stdint cimport int64_t

from fastwsgi._content cimport Input
from fastwsgi._parser cimport parser_t


cdef dict environ_template(str server_name, str server_port, bint multithread, bint multiprocess,
                           object errors, object file_wrapper, str software)
# Everything is borrowed for the call. input is None when there is no content; content_size: of the received content, -1
# when the request announced none.
cdef dict environ_build(dict template, const parser_t* parser, const char* data,
                        const char* peer, size_t peer_size, int peer_port, Input input, int64_t content_size, object client_gone)
