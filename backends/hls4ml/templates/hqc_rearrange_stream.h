#ifndef HQC_REARRANGE_STREAM_H_
#define HQC_REARRANGE_STREAM_H_

#include "hqc_rearrange.h"
#include "hqc_stream.h"

namespace nnet {

// As hqc_rearrange and hqc_join, between streams. The first two keep all of their sources, so they
// take as much memory as the tensors and give nothing before the last packet has come.
template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_rearrange_stream(in_S &data, out_S &res, typename CONFIG_T::table_t table[CONFIG_T::n_out],
                          typename CONFIG_T::fill_t fill[1]) {
    typename data_T::value_type held[CONFIG_T::n_in1];
    hqc_collect<data_T, CONFIG_T::n_in1>(data, held);

Packets:
    for (unsigned ii = 0; ii < CONFIG_T::n_out / res_T::size; ii++) {
        #pragma HLS PIPELINE
        res_T packet;
    Elements:
        for (unsigned jj = 0; jj < res_T::size; jj++) {
            #pragma HLS UNROLL
            const unsigned from = table[ii * res_T::size + jj].to_uint();
            if (from < CONFIG_T::n_in1)
                packet[jj] = held[from];
            else
                packet[jj] = fill[0];
        }
        res.write(packet);
    }
}

template <class data1_T, class data2_T, class res_T, typename CONFIG_T, class in1_S, class in2_S, class out_S>
void hqc_join_stream(in1_S &data1, in2_S &data2, out_S &res, typename CONFIG_T::table_t table[CONFIG_T::n_out],
                     typename CONFIG_T::fill_t fill[1]) {
    typename data1_T::value_type held1[CONFIG_T::n_in1];
    typename data2_T::value_type held2[CONFIG_T::n_in2];
    hqc_collect<data1_T, CONFIG_T::n_in1>(data1, held1);
    hqc_collect<data2_T, CONFIG_T::n_in2>(data2, held2);

Packets:
    for (unsigned ii = 0; ii < CONFIG_T::n_out / res_T::size; ii++) {
        #pragma HLS PIPELINE
        res_T packet;
    Elements:
        for (unsigned jj = 0; jj < res_T::size; jj++) {
            #pragma HLS UNROLL
            const unsigned from = table[ii * res_T::size + jj].to_uint();
            if (from < CONFIG_T::n_in1)
                packet[jj] = held1[from];
            else if (from < CONFIG_T::n_in1 + CONFIG_T::n_in2)
                packet[jj] = held2[from - CONFIG_T::n_in1];
            else
                packet[jj] = fill[0];
        }
        res.write(packet);
    }
}

// The same where each packet takes its elements from one packet of a source, in the order of the
// stream: nothing is kept but the last packet. A step reads what the next packet needs, or writes
// it, or both; behind the last packet the rest of the source is read and dropped.
template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_flow_stream(in_S &data, out_S &res, typename CONFIG_T::table_t table[CONFIG_T::n_out],
                     typename CONFIG_T::fill_t fill[1]) {
    const unsigned n_read = CONFIG_T::n_in1 / data_T::size;
    const unsigned n_write = CONFIG_T::n_out / res_T::size;
    data_T last;
    unsigned read = 0;
    unsigned written = 0;

Steps:
    while (read < n_read || written < n_write) {
        #pragma HLS PIPELINE
        unsigned needed = written < n_write ? 0 : n_read;
    Needed:
        for (unsigned jj = 0; jj < res_T::size; jj++) {
            #pragma HLS UNROLL
            const unsigned from = written < n_write ? table[written * res_T::size + jj].to_uint() : CONFIG_T::n_in1;
            if (from < CONFIG_T::n_in1)
                needed = from / data_T::size + 1;
        }
        if (read < needed) {
            last = data.read();
            read++;
        }
        if (read >= needed && written < n_write) {
            res_T packet;
        Elements:
            for (unsigned jj = 0; jj < res_T::size; jj++) {
                #pragma HLS UNROLL
                const unsigned from = table[written * res_T::size + jj].to_uint();
                if (from < CONFIG_T::n_in1)
                    packet[jj] = last[from % data_T::size];
                else
                    packet[jj] = fill[0];
            }
            res.write(packet);
            written++;
        }
    }
}

template <class data1_T, class data2_T, class res_T, typename CONFIG_T, class in1_S, class in2_S, class out_S>
void hqc_flow_join_stream(in1_S &data1, in2_S &data2, out_S &res, typename CONFIG_T::table_t table[CONFIG_T::n_out],
                          typename CONFIG_T::fill_t fill[1]) {
    const unsigned n_both = CONFIG_T::n_in1 + CONFIG_T::n_in2;
    const unsigned n_read1 = CONFIG_T::n_in1 / data1_T::size;
    const unsigned n_read2 = CONFIG_T::n_in2 / data2_T::size;
    const unsigned n_write = CONFIG_T::n_out / res_T::size;
    data1_T last1;
    data2_T last2;
    unsigned read1 = 0;
    unsigned read2 = 0;
    unsigned written = 0;

Steps:
    while (read1 < n_read1 || read2 < n_read2 || written < n_write) {
        #pragma HLS PIPELINE
        unsigned needed1 = written < n_write ? 0 : n_read1;
        unsigned needed2 = written < n_write ? 0 : n_read2;
    Needed:
        for (unsigned jj = 0; jj < res_T::size; jj++) {
            #pragma HLS UNROLL
            const unsigned from = written < n_write ? table[written * res_T::size + jj].to_uint() : n_both;
            if (from < CONFIG_T::n_in1)
                needed1 = from / data1_T::size + 1;
            else if (from < n_both)
                needed2 = (from - CONFIG_T::n_in1) / data2_T::size + 1;
        }
        if (read1 < needed1) {
            last1 = data1.read();
            read1++;
        }
        if (read2 < needed2) {
            last2 = data2.read();
            read2++;
        }
        if (read1 >= needed1 && read2 >= needed2 && written < n_write) {
            res_T packet;
        Elements:
            for (unsigned jj = 0; jj < res_T::size; jj++) {
                #pragma HLS UNROLL
                const unsigned from = table[written * res_T::size + jj].to_uint();
                if (from < CONFIG_T::n_in1)
                    packet[jj] = last1[from % data1_T::size];
                else if (from < n_both)
                    packet[jj] = last2[(from - CONFIG_T::n_in1) % data2_T::size];
                else
                    packet[jj] = fill[0];
            }
            res.write(packet);
            written++;
        }
    }
}

} // namespace nnet

#endif
