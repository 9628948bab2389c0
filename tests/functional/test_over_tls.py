"""What other modules show of plain connections, over TLS: the tests are theirs, the server is another one."""

import pytest

from conftest import GREENLETS, POLLERS, crew_id, serving
from functional.test_client_gone import test_one_that_stays_is_not_gone, test_the_application_can_see_it
from functional.test_connection import (
    test_a_client_that_vanishes_while_reading,
    test_chunked_content_then_the_next_request_in_one_send,
    test_half_closed_after_pipelined_requests,
    test_half_closed_in_the_middle_of_a_request,
    test_half_closed_while_the_application_runs,
    test_kept_for_many_requests,
    test_pipelined_answers_keep_their_order_when_the_first_is_slow,
    test_pipelined_requests_with_and_without_content,
    test_the_last_of_some_pipelined_requests_closes,
    test_what_comes_after_connection_close_is_not_answered,
    test_write_to_a_client_that_is_gone_raises,
)
from functional.test_content import (
    test_big_content,
    test_byte_by_byte,
    test_continue_comes_after_the_answers_before_it,
    test_continue_is_sent_before_the_content,
    test_many_small_chunks,
)
from functional.test_crew import test_a_block_leaves_before_the_application_sleeps
from functional.test_edges import (
    test_a_file_that_becomes_shorter_while_it_is_sent,
    test_write_by_another_thread_that_outlives_the_exchange,
)
from functional.test_file_wrapper import (
    file,
    test_a_big_file_to_a_slow_reader_is_closed_at_once_and_holds_no_thread,
    test_a_file,
    test_a_real_file_is_closed,
    test_pipelined,
)
from functional.test_framing import (
    test_head_has_no_content,
    test_several_blocks_are_chunked,
    test_too_little_content_closes_the_connection_and_is_logged,
    test_too_much_content_for_length_zero,
)
from functional.test_limits import test_a_head_that_takes_too_long, test_limits
from functional.test_probes import test_while_every_thread_is_busy
from functional.test_revoke import (
    test_a_producer_that_waits_for_its_client_is_woken,
    test_pipelined_answers_before_it_are_sent,
    test_revoked_after_the_head_has_left,
    test_revoked_at_any_moment,
    test_revoked_before_the_head_has_left,
)
from functional.test_slow_clients import (
    test_pipelined_big_answers_to_a_slow_reader,
    test_slow_uploads_hold_no_thread,
)
from functional.test_stress import (
    test_the_lead_is_taken_all_the_time,
    test_two_threads_of_the_application_write_at_once,
)
from functional.test_timeout import test_an_exchange_without_progress_is_answered_with_503
from secure import SecureServer

# Each poller and each number of threads once: TLS and the poller know nothing of each other.
CREWS = [(POLLERS[0], 4), (POLLERS[-1], 1)]
if GREENLETS:
    CREWS = CREWS[:1]


@pytest.fixture(params=CREWS, ids=crew_id)
def serve(request):
    """As `serve` everywhere, with servers that speak TLS."""
    yield from serving(request, SecureServer, *request.param)
